"""Reading the three forms of a detection request, within the limits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from fastapi import Request
from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import ImmutableMultiDict

from service.detector import ImageSource
from service.errors import (
    BusyError,
    InvalidOptionError,
    MalformedRequestError,
    TooLargeError,
    UnsupportedTypeError,
)
from service.schemas import DetectJson, DetectQuery
from service.settings import Settings

OTHER_TYPES: Final = ("application/octet-stream", "multipart/form-data", "application/json")
IMAGE_FIELDS: Final = ("images", "image", "file")
MOST_FORM_FIELDS: Final = 32
MOST_FIELD_BYTES: Final = 4096
MOST_JSON_VALUES: Final = 1000


class BodyMemory:
    """A bound on the bytes of all requests that are held at once.

    Args:
        max_bytes: The bound.
    """

    def __init__(self, max_bytes: int) -> None:
        self._free = max_bytes

    def lease(self) -> "BodyLease":
        """Room for one request, given back where its context ends."""
        return BodyLease(self)

    def take(self, count: int) -> None:
        """Take so many bytes.

        Raises:
            BusyError: They are not free.
        """
        if count > self._free:
            raise BusyError("too many bytes of requests are held at once", retry_after_s=1)
        self._free -= count

    def give_back(self, count: int) -> None:
        """Free so many bytes."""
        self._free += count


class BodyLease:
    """What one request holds of a `BodyMemory`, until the context is left."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self.held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.give_back(self.held)

    def grow(self, count: int) -> None:
        """Hold so many bytes more.

        Raises:
            BusyError: They are not free.
        """
        self._memory.take(count)
        self.held += count


async def read_request(
    request: Request, query: DetectQuery, settings: Settings, lease: BodyLease
) -> tuple[list[ImageSource], DetectQuery]:
    """Read a request's images, and its options from query and body; the query wins.

    Raises:
        MalformedRequestError: The body cannot be parsed or holds no image.
        TooLargeError: The body or the number of images exceeds its limit.
        BusyError: Too many bytes of all requests are held.
        UnsupportedTypeError: The body is of none of the three forms.
        InvalidOptionError: An option in the body is unknown or out of range.
    """
    content_type = request.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if not media_type.startswith("image/") and media_type not in OTHER_TYPES:
        raise UnsupportedTypeError(
            f"Content-Type is {media_type or 'missing'}; send image/*, application/octet-stream, "
            "multipart/form-data or application/json"
        )
    body = await _read_body(request, settings.max_body_bytes, lease)
    if media_type == "multipart/form-data":
        sources, options = _read_multipart(body, content_type, query, settings)
    elif media_type == "application/json":
        sources, options = _read_json(body, query, settings)
    else:
        sources, options = [ImageSource(body)] if body else [], query
    if not sources:
        raise MalformedRequestError("the request holds no image")
    if len(sources) > settings.max_images_per_request:
        raise _too_many_images(settings)
    return sources, options


def read_options(fields: ImmutableMultiDict[str, Any]) -> DetectQuery:
    """The options among a query's or a form's fields; the last of a name counts, but all classes.

    Raises:
        InvalidOptionError: One is unknown or out of range.
    """
    given: dict[str, object] = {
        name: value for name, value in fields.items() if isinstance(value, str)
    }
    if "classes" in given:
        given["classes"] = fields.getlist("classes")
    try:
        return DetectQuery.model_validate(given)
    except ValidationError as error:
        raise _option_problem(error) from error


def _option_problem(error: ValidationError) -> InvalidOptionError:
    """The option that is wrong, and how, in one sentence."""
    return InvalidOptionError(describe_errors(error.errors()))


def describe_errors(errors: Sequence[Any]) -> str:
    """Pydantic's findings in one sentence."""
    return "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in errors)


async def _read_body(request: Request, max_bytes: int, lease: BodyLease) -> bytes:
    """The whole body, up to a limit that its declared length is held against first."""
    # The HTTP parser has seen to it that this is a number.
    if int(request.headers.get("content-length", "0")) > max_bytes:
        raise _too_many_bytes(max_bytes)
    chunks = []
    async for chunk in request.stream():
        lease.grow(len(chunk))
        if lease.held > max_bytes:
            raise _too_many_bytes(max_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a form: a file if it has a filename, else a text."""

    name: str
    filename: str | None
    content: bytes


def _read_multipart(
    body: bytes, content_type: str, query: DetectQuery, settings: Settings
) -> tuple[list[ImageSource], DetectQuery]:
    files, texts = [], []
    for part in _parts(body, _boundary(content_type)):
        if part.filename is None:
            texts.append(_text_field(part))
        else:
            _check_image_field(part.name)
            files.append(ImageSource(part.content, filename=part.filename))
        if len(files) > settings.max_images_per_request:
            raise _too_many_images(settings)
        if len(texts) > MOST_FORM_FIELDS:
            raise _malformed_form(f"it has more than {MOST_FORM_FIELDS} fields")
    if not texts:
        return files, query
    return files, _merge(query, read_options(ImmutableMultiDict(texts)))


def _boundary(content_type: str) -> bytes:
    _, parameters = parse_options_header(content_type)
    boundary = parameters.get(b"boundary", b"")
    if not boundary:
        raise _malformed_form("no boundary in Content-Type")
    return boundary


def _parts(body: bytes, boundary: bytes) -> Iterator[_Part]:
    """The parts of a multipart body, as RFC 7578 has them."""
    delimiter = b"\r\n--" + boundary
    # The first may come at the very start, where no line ends before it.
    end = -2 if body.startswith(delimiter[2:]) else body.find(delimiter)
    while end != -1:
        start = end + len(delimiter)
        if body.startswith(b"--", start):
            return
        end = body.find(delimiter, start)
        if end != -1:
            yield _part(body, start, end)
    raise _malformed_form("it ends before its final boundary")


def _part(body: bytes, start: int, end: int) -> _Part:
    """The part from after one boundary to before the next."""
    head_end = body.find(b"\r\n\r\n", start, min(end, start + MOST_FIELD_BYTES))
    blank, *headers = body[start : max(start, head_end)].split(b"\r\n")
    if head_end == -1 or blank.strip():
        raise _malformed_form("a part has no headers, or too many")
    options: dict[bytes, bytes] = {}
    for header in headers:
        name, _, value = header.partition(b":")
        if name.lower() == b"content-disposition":
            _, options = parse_options_header(value.strip())
    if b"name" not in options:
        raise _malformed_form("a part has no name")
    filename = options.get(b"filename")
    content = body[head_end + 4 : end]
    return _Part(_text(options[b"name"]), None if filename is None else _text(filename), content)


def _text(content: bytes) -> str:
    """UTF-8 or else Latin-1: a form's own charset would let a client choose any decoder."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _text_field(part: _Part) -> tuple[str, str]:
    if part.name in IMAGE_FIELDS:
        raise MalformedRequestError("an image part needs a filename, or it is only text")
    if len(part.content) > MOST_FIELD_BYTES:
        raise _malformed_form(f"field {part.name!r} has more than {MOST_FIELD_BYTES} bytes")
    return part.name, _text(part.content)


def _check_image_field(name: str) -> None:
    if name not in IMAGE_FIELDS:
        known = ", ".join(IMAGE_FIELDS)
        raise MalformedRequestError(f"file part {name!r}; images are named {known}")


def _read_json(
    body: bytes, query: DetectQuery, settings: Settings
) -> tuple[list[ImageSource], DetectQuery]:
    # Base64 has no commas: this bounds what parsing can cost, whatever the body's length.
    if body.count(b",") > 2 * settings.max_images_per_request + MOST_JSON_VALUES:
        raise TooLargeError("the JSON holds more values than a request may")
    try:
        parsed = DetectJson.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"][:1] in ((), ("images",)):
            raise MalformedRequestError(f"malformed JSON body: {first['msg']}") from error
        raise _option_problem(error) from error
    if len(parsed.images) > settings.max_images_per_request:
        raise _too_many_images(settings)
    sources = [ImageSource(image.encode(errors="replace"), "base64") for image in parsed.images]
    return sources, _merge(query, parsed)


def _merge(query: DetectQuery, body: DetectQuery) -> DetectQuery:
    fields = body.model_dump(exclude_none=True, exclude={"images"})
    return DetectQuery.model_construct(**(fields | query.model_dump(exclude_none=True)))


def _malformed_form(why: str) -> MalformedRequestError:
    return MalformedRequestError(f"malformed multipart body: {why}")


def _too_many_images(settings: Settings) -> TooLargeError:
    return TooLargeError(f"a request may hold at most {settings.max_images_per_request} images")


def _too_many_bytes(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"a request's body may have at most {max_bytes} bytes")
