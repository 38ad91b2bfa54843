"""Parsing the two forms of a body that may hold several images: multipart and JSON."""

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import ImmutableMultiDict

from service.errors import InvalidOptionError, MalformedRequestError, TooLargeError
from service.http.options import DetectJson, DetectQuery, read_options
from service.http.problems import describe_errors
from service.pipeline.stages import ImageSource

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

IMAGE_FIELDS: Final = ("images", "image", "file")
MAX_FORM_FIELDS: Final = 32
MAX_FIELD_BYTES: Final = 4096
# A slice is parsed in a few microseconds as a rule, and in a few milliseconds at worst.
SLICE_BYTES: Final = 4 * 1024
TURN_S: Final = 0.001
MAX_JSON_VALUES: Final = 1000


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a form: a file if it has a filename, else a text."""

    name: str
    filename: str | None
    content: bytes


async def read_multipart(
    body: bytes, content_type: str, query: DetectQuery, max_images: int
) -> tuple[list[ImageSource], DetectQuery]:
    """The images of a multipart body, and its options beside those of the query.

    Raises:
        MalformedRequestError: The body is not such a form, or a file's field has another name.
        TooLargeError: It has more images or parts than a request may.
        InvalidOptionError: An option is unknown or out of range.
    """
    files, texts = [], []
    for part in await _parts(body, _boundary(content_type), max_images + MAX_FORM_FIELDS + 1):
        if part.filename is None:
            texts.append(_text_field(part))
        else:
            _check_image_field(part.name)
            files.append(ImageSource(part.content, filename=part.filename))
        if len(files) > max_images:
            raise too_many_images(max_images)
        if len(texts) > MAX_FORM_FIELDS:
            raise _malformed_form(f"it has more than {MAX_FORM_FIELDS} fields")
    if not texts:
        return files, query
    return files, query.with_fields(read_options(ImmutableMultiDict(texts)))


def _boundary(content_type: str) -> bytes:
    _, parameters = parse_options_header(content_type)
    boundary = parameters.get(b"boundary", b"")
    if not boundary:
        raise _malformed_form("no boundary in Content-Type")
    return boundary


async def _parts(body: bytes, boundary: bytes, limit: int) -> list[_Part]:
    """The parts of a multipart body; other requests get their turn while a long one is parsed."""
    form = _FormParts(limit)
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
    """Collects a form's parts from the parser's callbacks.

    Args:
        limit: How many parts there may be.
    """

    def __init__(self, limit: int) -> None:
        self.parts: list[_Part] = []
        self.ended = False
        self._limit = limit
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
        if len(self.parts) >= self._limit:
            raise TooLargeError(f"a form may have at most {self._limit} parts")
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
    if len(part.content) > MAX_FIELD_BYTES:
        raise _malformed_form(f"field {part.name!r} has more than {MAX_FIELD_BYTES} bytes")
    return part.name, _text(part.content)


def _check_image_field(name: str) -> None:
    if name not in IMAGE_FIELDS:
        known = ", ".join(IMAGE_FIELDS)
        raise MalformedRequestError(f"file part {name!r}; images are named {known}")


def read_json(
    body: bytes, query: DetectQuery, max_images: int
) -> tuple[list[ImageSource], DetectQuery]:
    """The images of a JSON body, and its options beside those of the query.

    Raises:
        MalformedRequestError: The body is not such JSON.
        TooLargeError: It has more images, values or escapes than a request may.
        InvalidOptionError: An option is unknown or out of range.
    """
    # Base64 has no commas, so their number bounds the cost of parsing, whatever the body's length.
    if body.count(b",") > 2 * max_images + MAX_JSON_VALUES:
        raise TooLargeError("the JSON holds more values than a request may")
    # Encoders either escape the slashes of base64, one character in 64, or nothing.
    if body.count(b"\\") > len(body) // 32 + MAX_JSON_VALUES:
        raise TooLargeError("the JSON holds more escapes than a request may")
    try:
        parsed = DetectJson.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"][:1] in ((), ("images",)):
            raise MalformedRequestError(f"malformed JSON body: {first['msg']}") from error
        raise InvalidOptionError(describe_errors(error.errors())) from error
    if len(parsed.images) > max_images:
        raise too_many_images(max_images)
    sources = [ImageSource(image.encode(errors="replace"), "base64") for image in parsed.images]
    return sources, query.with_fields(parsed)


def too_many_images(limit: int) -> TooLargeError:
    """The error of a request with more images than this."""
    return TooLargeError(f"a request may hold at most {limit} images")


def _malformed_form(why: str) -> MalformedRequestError:
    return MalformedRequestError(f"malformed multipart body: {why}")
