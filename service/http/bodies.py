"""Reading the three forms of a detection request, within the limits."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from fastapi import Request
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import ImmutableMultiDict

from service.errors import (
    BusyError,
    InvalidOptionError,
    MalformedRequestError,
    TooLargeError,
    UnsupportedTypeError,
)
from service.http.schemas import DetectJson, DetectQuery
from service.pipeline.stages import ImageSource
from service.settings import Settings

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

OTHER_TYPES: Final = ("application/octet-stream", "multipart/form-data", "application/json")
IMAGE_FIELDS: Final = ("images", "image", "file")
MOST_FORM_FIELDS: Final = 32
MOST_FIELD_BYTES: Final = 4096
# Parsed in some milliseconds, whatever it holds; mostly in some microseconds.
SLICE_BYTES: Final = 4 * 1024
TURN_S: Final = 0.001
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
        sources, options = await _read_multipart(body, content_type, query, settings)
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


async def _read_multipart(
    body: bytes, content_type: str, query: DetectQuery, settings: Settings
) -> tuple[list[ImageSource], DetectQuery]:
    files, texts = [], []
    most = settings.max_images_per_request + MOST_FORM_FIELDS + 1
    for part in await _parts(body, _boundary(content_type), most):
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


async def _parts(body: bytes, boundary: bytes, most: int) -> list[_Part]:
    """The parts of a multipart body; others get their turn while a long one is taken apart."""
    form = _FormParts(most)
    try:
        parser = MultipartParser(boundary, form.callbacks)
        began = time.monotonic()
        for start in range(0, len(body), SLICE_BYTES):
            parser.write(body[start : start + SLICE_BYTES])
            if time.monotonic() - began > TURN_S:
                await asyncio.sleep(0)
                began = time.monotonic()
        parser.finalize()
    except FormParserError as error:
        raise _malformed_form(str(error)) from error
    if not form.ended:
        raise _malformed_form("it ends before its final boundary")
    return form.parts


class _FormParts:
    """Collects a form's parts from what its parser tells, a piece after another.

    Args:
        most: How many parts there may be.
    """

    def __init__(self, most: int) -> None:
        self.parts: list[_Part] = []
        self.ended = False
        self._most = most
        self._name, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._content: list[bytes] = []
        self.callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": lambda data, start, end: self._content.append(data[start:end]),
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) >= self._most:
            raise TooLargeError(f"a form may have at most {self._most} parts")
        self._disposition = b""

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _end_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise _malformed_form("a part has no name")
        filename = options.get(b"filename")
        content = b"".join(self._content)
        self._content.clear()
        self.parts.append(
            _Part(_text(options[b"name"]), None if filename is None else _text(filename), content)
        )

    def _end(self) -> None:
        self.ended = True


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
    # Encoders escape the slashes of base64, one letter in 64, or nothing.
    if body.count(b"\\") > len(body) // 32 + MOST_JSON_VALUES:
        raise TooLargeError("the JSON holds more escapes than a request may")
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
