"""Reading the three forms of a detection request, within the limits."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.detector import ImageSource
from service.errors import (
    InvalidOptionError,
    MalformedRequestError,
    TooLargeError,
    UnsupportedTypeError,
)
from service.schemas import DetectJson, DetectQuery
from service.settings import Settings

IMAGE_FIELDS: Final = ("images", "image", "file")
MOST_FORM_FIELDS: Final = 100


async def read_request(
    request: Request, query: DetectQuery, settings: Settings
) -> tuple[list[ImageSource], DetectQuery]:
    """Read a request's images, and its options from query and body; the query wins.

    Raises:
        MalformedRequestError: The body cannot be parsed or holds no image.
        TooLargeError: The body or the number of images exceeds its limit.
        UnsupportedTypeError: The body is of none of the three forms.
        InvalidOptionError: An option in the body is unknown or out of range.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        sources, options = await _read_multipart(request, query, settings)
    elif content_type == "application/json":
        sources, options = await _read_json(request, query, settings)
    elif content_type.startswith("image/") or content_type == "application/octet-stream":
        body = await _read_body(request, settings.max_body_bytes)
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


def option_problem(error: ValidationError) -> InvalidOptionError:
    """The option that is wrong, and how, in one sentence."""
    return InvalidOptionError(describe_errors(error.errors()))


def describe_errors(errors: Sequence[Any]) -> str:
    """Pydantic's findings in one sentence."""
    return "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in errors)


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body's chunks, up to a limit that its declared length is held against first."""
    declared = request.headers.get("content-length", "")
    received = int(declared) if declared.isdecimal() else 0
    if received > max_bytes:
        raise _too_many_bytes(max_bytes)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            raise _too_many_bytes(max_bytes)
        yield chunk


async def _read_body(request: Request, max_bytes: int) -> bytes:
    return b"".join([chunk async for chunk in _limited(request, max_bytes)])


class _InMemoryParser(MultiPartParser):
    """Bodies are bounded, so that no part needs a detour over the disk."""

    spool_max_size = 2**31


async def _read_multipart(
    request: Request, query: DetectQuery, settings: Settings
) -> tuple[list[ImageSource], DetectQuery]:
    parser = _InMemoryParser(
        request.headers,
        _limited(request, settings.max_body_bytes),
        max_files=settings.max_images_per_request,
        max_fields=MOST_FORM_FIELDS,
        max_part_size=settings.max_body_bytes,
    )
    try:
        form = await parser.parse()
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
    fields: dict[str, object] = {
        name: form.getlist(name) if name == "classes" else value
        for name, value in form.multi_items()
        if isinstance(value, str)
    }
    try:
        return _merge(query, DetectQuery.model_validate(fields))
    except ValidationError as error:
        raise option_problem(error) from error


async def _read_json(
    request: Request, query: DetectQuery, settings: Settings
) -> tuple[list[ImageSource], DetectQuery]:
    body = await _read_body(request, settings.max_body_bytes)
    try:
        parsed = DetectJson.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"][:1] in ((), ("images",)):
            raise MalformedRequestError(f"malformed JSON body: {first['msg']}") from error
        raise option_problem(error) from error
    sources = [ImageSource(image.encode(), "base64") for image in parsed.images]
    return sources, _merge(query, parsed)


def _merge(query: DetectQuery, body: DetectQuery) -> DetectQuery:
    fields = body.model_dump(exclude_none=True, exclude={"images"})
    return DetectQuery.model_construct(**(fields | query.model_dump(exclude_none=True)))


def _too_many_images(settings: Settings) -> TooLargeError:
    return TooLargeError(f"a request may hold at most {settings.max_images_per_request} images")


def _too_many_bytes(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"a request's body may have at most {max_bytes} bytes")
