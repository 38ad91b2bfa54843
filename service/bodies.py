"""Reading the three forms of a detection request, within the limits."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from fastapi import Request
from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, ImmutableMultiDict, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

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

    @contextmanager
    def lease(self) -> Iterator["BodyLease"]:
        """Room for one request, given back at its end."""
        lease = BodyLease(self)
        try:
            yield lease
        finally:
            self._free += lease.held

    def take(self, count: int) -> None:
        """Take so many bytes.

        Raises:
            BusyError: They are not free.
        """
        if count > self._free:
            raise BusyError("too many bytes of requests are held at once", retry_after_s=1)
        self._free -= count


class BodyLease:
    """What one request holds of a `BodyMemory`."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self.held = 0

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
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    chunks = _limited(request, settings.max_body_bytes, lease)
    if content_type == "multipart/form-data":
        sources, options = await _read_multipart(request, chunks, query, settings)
    elif content_type == "application/json":
        sources, options = _read_json(await _joined(chunks), query, settings)
    elif content_type.startswith("image/") or content_type == "application/octet-stream":
        body = await _joined(chunks)
        sources, options = [ImageSource(body)] if body else [], query
    else:
        raise UnsupportedTypeError(
            f"Content-Type is {content_type or 'missing'}; send image/*, application/octet-stream, "
            "multipart/form-data or application/json"
        )
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


async def _limited(
    request: Request, max_bytes: int, lease: BodyLease
) -> AsyncGenerator[bytes, None]:
    """The body's chunks, up to a limit that its declared length is held against first."""
    # The HTTP parser has seen to it that this is a number.
    if int(request.headers.get("content-length", "0")) > max_bytes:
        raise _too_many_bytes(max_bytes)
    received = 0
    async for chunk in request.stream():
        lease.grow(len(chunk))
        received += len(chunk)
        if received > max_bytes:
            raise _too_many_bytes(max_bytes)
        yield chunk


async def _joined(chunks: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


class _InMemoryParser(MultiPartParser):
    """Bodies are bounded, so that no part needs a detour over the disk."""

    spool_max_size = 2**31

    def __init__(self, headers: Headers, chunks: AsyncGenerator[bytes, None], images: int) -> None:
        super().__init__(
            headers,
            self._whole(chunks),
            max_files=images,
            max_fields=MOST_FORM_FIELDS,
            max_part_size=MOST_FIELD_BYTES,
        )
        self._ended = False

    def on_end(self) -> None:
        """The final boundary came."""
        self._ended = True

    async def _whole(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The chunks, and an error after the last one if the body was cut short."""
        async for chunk in chunks:
            yield chunk
        if not self._ended:
            raise MultiPartException("it ends before its final boundary")


def _only_boundary(headers: Headers) -> Headers:
    """The form's content type without its charset, which lets a client choose any decoder."""
    _, parameters = parse_options_header(headers["content-type"])
    boundary = parameters.get(b"boundary", b"").decode("latin-1")
    if not boundary or '"' in boundary:
        raise MalformedRequestError("malformed multipart body: no boundary in Content-Type")
    return Headers({"content-type": f'multipart/form-data; boundary="{boundary}"'})


async def _read_multipart(
    request: Request,
    chunks: AsyncGenerator[bytes, None],
    query: DetectQuery,
    settings: Settings,
) -> tuple[list[ImageSource], DetectQuery]:
    headers = _only_boundary(request.headers)
    try:
        form = await _InMemoryParser(headers, chunks, settings.max_images_per_request).parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise _too_many_images(settings) from error
        raise MalformedRequestError(f"malformed multipart body: {error.message}") from error
    try:
        sources = [
            ImageSource(await upload.read(), filename=upload.filename)
            for name, upload in form.multi_items()
            if isinstance(upload, UploadFile) and _is_image_field(name)
        ]
        return sources, _with_fields(query, form)
    finally:
        await form.close()


def _is_image_field(name: str) -> bool:
    if name in IMAGE_FIELDS:
        return True
    raise MalformedRequestError(f"file part {name!r}; images are named {', '.join(IMAGE_FIELDS)}")


def _with_fields(query: DetectQuery, form: FormData) -> DetectQuery:
    texts = [name for name, value in form.multi_items() if isinstance(value, str)]
    if not set(texts).isdisjoint(IMAGE_FIELDS):
        raise MalformedRequestError("an image part needs a filename, or it is only text")
    return _merge(query, read_options(form))


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


def _too_many_images(settings: Settings) -> TooLargeError:
    return TooLargeError(f"a request may hold at most {settings.max_images_per_request} images")


def _too_many_bytes(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"a request's body may have at most {max_bytes} bytes")
