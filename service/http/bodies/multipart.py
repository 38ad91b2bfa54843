"""The multipart form of a body: image files, and options in text fields."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import MalformedRequestError, TooLargeError
from service.http.bodies.turns import Turns
from service.http.options import DetectQuery, RequestLimits, option_named, read_form_options
from service.imaging.kinds import has_image_signature, is_url
from service.pipeline.stages import ImageSource

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

# Usual names of file inputs. Several of a name are often numbered, or marked as a list.
IMAGE_FIELDS: Final = ("images", "image", "files", "file")
IMAGE_FIELD: Final = re.compile(rf"({'|'.join(IMAGE_FIELDS)})(\[\d*\]|\.\d+)?", re.IGNORECASE)
MAX_FORM_FIELDS: Final = 32
MAX_FIELD_BYTES: Final = 4096
# No client writes one nowadays, but the standard allows it.
MAX_PREAMBLE_BYTES: Final = 4096
# A slice is parsed in some ten microseconds as a rule, and in four milliseconds at worst.
SLICE_BYTES: Final = 32 * 1024
# RFC 8187, which some clients use for names beyond ASCII: filename*=UTF-8''na%C3%AFve.png
EXTENDED_FILENAME: Final = re.compile(
    rb"""filename\*\s*=\s*"?[\w-]*'[^']*'([^\s;"]*)""", re.IGNORECASE
)
IDENTITY_ENCODINGS: Final = (b"", b"binary", b"8bit", b"7bit")


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a form.

    Attributes:
        name: Its field.
        filename: The client's name of a file; None for a text, as a rule.
        media_type: Its Content-Type, or none.
        is_base64: Whether its content is in base64.
        content: Its bytes.
    """

    name: str
    filename: str | None
    media_type: bytes
    is_base64: bool
    content: bytes

    @property
    def is_file(self) -> bool:
        """Whether it says that it is a file, by its filename or its type."""
        return (
            self.filename is not None
            or self.media_type.startswith(b"image/")
            or self.media_type == b"application/octet-stream"
        )

    @property
    def is_unused_input(self) -> bool:
        """Whether a browser sent it for a file input in which no file was chosen."""
        return self.filename == "" and not self.content


async def read_multipart(
    body: bytes, content_type: str, query: DetectQuery, limits: RequestLimits
) -> tuple[list[ImageSource], DetectQuery]:
    """The images of a multipart body, and its options beside those of the query.

    Text fields that are no options, such as a browser's submit button, are ignored, but for those
    that look like a misspelt option.

    Raises:
        MalformedRequestError: The body is not such a form, or a file's field has another name.
        TooLargeError: It has more images or parts than a request may.
        InvalidOptionError: An option is misspelt or out of range.
    """
    images: list[ImageSource] = []
    texts: list[tuple[str, str]] = []
    max_parts = limits.images + MAX_FORM_FIELDS + 1
    for part in await _parts(body, _boundary(content_type), max_parts):
        if IMAGE_FIELD.fullmatch(part.name):
            images += _images(part)
        elif part.is_file:
            _refuse_file(part)
        else:
            texts.append(_text_field(part))
        if len(images) > limits.images:
            raise too_many_images(limits.images)
        if len(texts) > MAX_FORM_FIELDS:
            raise _malformed_form(f"it has more than {MAX_FORM_FIELDS} fields")
    return images, query.with_fields(read_form_options(texts), limits) if texts else query


def _boundary(content_type: str) -> bytes:
    _, parameters = parse_options_header(content_type)
    boundary = parameters.get(b"boundary", b"")
    if not boundary:
        raise _malformed_form(
            "Content-Type names no boundary; leave that header to the HTTP client, which knows it"
        )
    return boundary


async def _parts(body: bytes, boundary: bytes, limit: int) -> list[_Part]:
    """The parts of a multipart body; other requests get their turn while a long one is parsed."""
    form, turns = _FormParts(limit), Turns()
    try:
        parser = MultipartParser(boundary, form.callbacks)
        for start in range(_preamble_bytes(body, boundary), len(body), SLICE_BYTES):
            parser.write(body[start : start + SLICE_BYTES])
            await turns.offer()
        parser.finalize()
    except FormParserError as error:
        raise _malformed_form(str(error)) from error
    if not form.ended:
        raise _malformed_form("it ends before its final boundary")
    return form.parts


def _preamble_bytes(body: bytes, boundary: bytes) -> int:
    """The length of any text before the first boundary; 0 if there is no boundary near."""
    delimiter = b"--" + boundary
    if body.startswith(delimiter):
        return 0
    before = body.find(b"\r\n" + delimiter, 0, MAX_PREAMBLE_BYTES + len(delimiter))
    return max(0, before)


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
        self._headers: dict[bytes, bytes] = {}
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
        self._headers.clear()

    def _end_header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _end_part(self) -> None:
        content = b"".join(self._content)
        self._content.clear()
        self.parts.append(_part(self._headers, content))

    def _end(self) -> None:
        self.ended = True


def _part(headers: dict[bytes, bytes], content: bytes) -> _Part:
    disposition = headers.get(b"content-disposition", b"")
    _, options = parse_options_header(disposition)
    if b"name" not in options:
        raise _malformed_form("a part has no name")
    filename = options.get(b"filename")
    if filename is None and (extended := EXTENDED_FILENAME.search(disposition)):
        filename = unquote_to_bytes(extended[1])
    encoding = headers.get(b"content-transfer-encoding", b"").strip().lower()
    if encoding not in (*IDENTITY_ENCODINGS, b"base64"):
        raise _malformed_form(f"Content-Transfer-Encoding {_text(encoding)} is not supported")
    return _Part(
        name=_text(options[b"name"]),
        filename=None if filename is None else _text(filename),
        media_type=headers.get(b"content-type", b"").partition(b";")[0].strip().lower(),
        is_base64=encoding == b"base64",
        content=content,
    )


def _text(content: bytes) -> str:
    """UTF-8 or else Latin-1: a form's own charset would let a client choose any decoder."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _images(part: _Part) -> list[ImageSource]:
    """The image in a part that is named like one, or none if nothing was chosen in that input."""
    if part.is_unused_input:
        return []
    if part.is_base64 or (not part.is_file and part.content[:5].lower() == b"data:"):
        return [ImageSource(part.content, "base64", part.filename)]
    if part.is_file or has_image_signature(part.content):
        return [ImageSource(part.content, filename=part.filename)]
    if not part.content:
        return []
    if is_url(part.content):
        raise MalformedRequestError(
            f"part {part.name!r} is a URL, and URLs are not fetched; send the image as a file"
        )
    raise MalformedRequestError(
        f"part {part.name!r} is text; an image part needs a filename, an image/* Content-Type, "
        "or a data: URI as its content"
    )


def _refuse_file(part: _Part) -> None:
    """Refuse a file of an unknown field, unless no file was chosen."""
    if not part.is_unused_input:
        known = ", ".join(IMAGE_FIELDS)
        raise MalformedRequestError(f"file part {part.name!r}; images are named {known}")


def _text_field(part: _Part) -> tuple[str, str]:
    if len(part.content) > MAX_FIELD_BYTES and option_named(part.name):
        raise _malformed_form(f"field {part.name!r} has more than {MAX_FIELD_BYTES} bytes")
    return part.name, _text(part.content[: MAX_FIELD_BYTES + 1])


def too_many_images(limit: int) -> TooLargeError:
    """The error of a request with more images than this."""
    return TooLargeError(f"a request may hold at most {limit} images")


def no_image() -> MalformedRequestError:
    """The error of a request without an image."""
    return MalformedRequestError(
        "the request holds no image; send the bytes of one as the body, files as form parts named "
        "images, or JSON with base64 in images"
    )


def _malformed_form(why: str) -> MalformedRequestError:
    return MalformedRequestError(f"malformed multipart body: {why}")
