"""Real values where a schema cannot describe what the server takes: images, classes, deadlines.

Schemathesis imports this by `SCHEMATHESIS_HOOKS`.
"""

import base64
from typing import Any, Final

import schemathesis
from hypothesis import strategies
from pydantic import ValidationError

from service.http.options import DetectJson

# One grey pixel.
PNG: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
JSON_LENGTH: Final = "Inference-Header-Content-Length"
KNOWN_CLASS: Final = "0"
# Milliseconds; one that is shorter may rightly be answered with 504.
LONG_DEADLINE: Final = 9_000

images = strategies.just(base64.b64decode(PNG))
schemathesis.openapi.format("binary", images)
for media_type in ("image/*", "application/octet-stream"):
    schemathesis.openapi.media_type(media_type, images)


@schemathesis.hook
def filter_case(_context: Any, case: Any) -> bool:
    """Leave out bodies that the server rightly takes, though they are not to the letter valid.

    JSON may have an option of a type that is converted, such as "0.5" or 0. A single file looks the
    same in a form as a list of one.
    """
    body = case.body
    return not (
        isinstance(body, dict) and (is_converted(body) or isinstance(body.get("images"), bytes))
    )


def is_converted(body: dict[str, Any]) -> bool:
    """Whether a body is valid, but not to the letter of its schema."""
    return is_valid(body, strict=False) and not is_valid(body, strict=True)


def is_valid(body: dict[str, Any], *, strict: bool) -> bool:
    """Whether the server takes this body."""
    try:
        DetectJson.model_validate(body, strict=strict)
    except ValidationError:
        return False
    return True


@schemathesis.hook
def map_case(_context: Any, case: Any) -> Any:
    """Give a request values that exist; but leave alone what is to be refused for them."""
    for options in (case.query, case.body):
        if isinstance(options, dict):
            _allow_time(options)
            if case.meta is not None and case.meta.generation.mode.is_positive:
                _name_what_exists(options)
                if "inputs" in options:
                    _call_with_an_image(options)
    is_call = case.path.endswith("/infer") and case.meta is not None
    if is_call and case.meta.generation.mode.is_positive:
        _tell_json_length(case)
    return case


def _tell_json_length(case: Any) -> None:
    """Say of a body that is an image file that it holds no JSON, and of JSON that it is alone."""
    case.headers.pop(JSON_LENGTH, None)
    if isinstance(case.body, bytes):
        case.headers[JSON_LENGTH] = "0"


def _call_with_an_image(call: dict[str, Any]) -> None:
    """Give a call of the inference protocol the one input that there is, and nothing unknown."""
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [PNG]}
    call |= {"inputs": [image], "id": "1", "parameters": {}, "outputs": None}


def _allow_time(options: dict[str, Any]) -> None:
    """Turn the shortest deadline, with which any request may rightly fail, into a long one."""
    if (
        str(options.get("timeout_ms")).isdecimal()
        and 0 < int(options["timeout_ms"]) < LONG_DEADLINE
    ):
        options["timeout_ms"] = LONG_DEADLINE


def _name_what_exists(options: dict[str, Any]) -> None:
    if options.get("classes") is not None:
        options["classes"] = [KNOWN_CLASS]
    if "images" in options and all(isinstance(image, str) for image in options["images"]):
        options["images"] = [PNG for _ in options["images"]]
