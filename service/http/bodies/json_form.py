"""The JSON form of a body: images in base64, and options beside them."""

from typing import Any, Final

from pydantic import ValidationError

from service.errors import InvalidOptionError, MalformedRequestError, TooLargeError
from service.http.bodies.multipart import too_many_images
from service.http.options import DetectJson, DetectQuery, RequestLimits, describe_options
from service.pipeline.stages import ImageSource

MAX_JSON_VALUES: Final = 1000
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
OTHER_ENCODINGS: Final = (b"\xff\xfe", b"\xfe\xff", b"{\0", b"\0{")


def read_json(
    body: bytes, query: DetectQuery, limits: RequestLimits
) -> tuple[list[ImageSource], DetectQuery]:
    """The images of a JSON body, and its options beside those of the query.

    Raises:
        MalformedRequestError: The body is not such JSON.
        TooLargeError: It has more images, values or escapes than a request may.
        InvalidOptionError: An option is unknown or out of range.
    """
    refuse_costly(body, 2 * limits.images + MAX_JSON_VALUES)
    try:
        parsed = DetectJson.model_validate_json(body.removeprefix(BYTE_ORDER_MARK))
    except ValidationError as error:
        raise _refusal(error.errors()) from error
    if len(parsed.images) > limits.images:
        raise too_many_images(limits.images)
    sources = [ImageSource(image.encode(errors="replace"), "base64") for image in parsed.images]
    return sources, query.with_fields(parsed, limits)


def refuse_costly(body: bytes, max_values: int) -> None:
    """See before parsing that it will not take long, whatever the body's length.

    Args:
        body: JSON whose long values are in base64.
        max_values: Maximum commas, which base64 does not have.

    Raises:
        MalformedRequestError: The text is in another encoding than UTF-8.
        TooLargeError: It has more values or escapes than a request may.
    """
    if body.startswith(OTHER_ENCODINGS):
        raise MalformedRequestError("malformed JSON body: it is not UTF-8; encode it as UTF-8")
    if body.count(b",") > max_values:
        raise TooLargeError("the JSON holds more values than a request may")
    # Encoders either escape the slashes of base64, one character in 64, or nothing.
    if body.count(b"\\") > len(body) // 32 + MAX_JSON_VALUES:
        raise TooLargeError("the JSON holds more escapes than a request may")


def _refusal(errors: list[Any]) -> MalformedRequestError | InvalidOptionError:
    """The body's own faults come first, but for a field that may be a misspelt `images`."""
    faults = [item for item in errors if item["loc"][:1] in ((), ("images",))]
    if not faults or any(item["type"] == "extra_forbidden" for item in errors):
        return InvalidOptionError(describe_options(errors))
    place = ".".join(map(str, faults[0]["loc"]))
    return MalformedRequestError(
        f"malformed JSON body: {place}{': ' if place else ''}{faults[0]['msg']}"
    )
