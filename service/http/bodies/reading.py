"""From the head of a request to the images and options in its body."""

from collections.abc import AsyncIterable
from typing import Final, Literal

from fastapi import Request

from service.errors import MalformedRequestError, TooLargeError, UnsupportedTypeError
from service.http.bodies.coding import decompressed, is_compressed
from service.http.bodies.json_form import BYTE_ORDER_MARK, read_json
from service.http.bodies.memory import BodyLease, BodyMemory
from service.http.bodies.multipart import read_multipart, too_many_images
from service.http.options import DetectQuery
from service.imaging.read import has_image_signature
from service.pipeline.stages import ImageSource

Kind = Literal["image", "multipart", "json"]

KINDS: Final[dict[str, Kind]] = {
    "multipart/form-data": "multipart",
    "application/json": "json",
    "text/json": "json",
    "application/octet-stream": "image",
    "binary/octet-stream": "image",
}
# No type, and the type that curl, wget, Java and urllib give to bytes if nobody names one.
UNSAID: Final = ("", "application/x-www-form-urlencoded")
ACCEPTED: Final = "send image/*, application/octet-stream, multipart/form-data or application/json"


class BodyReader:
    """Reads the bodies of requests, within the server's limits.

    Args:
        max_bytes: Maximum length of one body.
        max_buffered_bytes: Maximum length of all bodies that are held at once.
        max_images: Maximum images in one body.
    """

    def __init__(self, max_bytes: int, max_buffered_bytes: int, max_images: int) -> None:
        self._max_bytes = max_bytes
        self._max_images = max_images
        self._memory = BodyMemory(max_buffered_bytes)

    def lease(self) -> BodyLease:
        """A context within which a request holds its body."""
        return BodyLease(self._memory)

    async def read(
        self, request: Request, query: DetectQuery, lease: BodyLease
    ) -> tuple[list[ImageSource], DetectQuery]:
        """The images of a request, and its options from query and body; the query's win.

        Raises:
            MalformedRequestError: The body cannot be parsed, or holds no image.
            TooLargeError: It is too long, or holds too many images.
            UnsupportedTypeError: It is of another type.
            InvalidOptionError: An option in it is unknown or out of range.
            BusyError: Other bodies take all of the memory.
        """
        content_type = request.headers.get("content-type", "")
        media_type = content_type.partition(";")[0].strip().lower()
        kind = _declared_kind(media_type)
        body = await self._read_whole(request, lease)
        match kind or _kind_by_content(body, media_type):
            case "multipart":
                sources, query = await read_multipart(body, content_type, query, self._max_images)
            case "json":
                sources, query = read_json(body, query, self._max_images)
            case _:
                sources = [ImageSource(body)] if body else []
        if not sources:
            raise MalformedRequestError("the request holds no image")
        if len(sources) > self._max_images:
            raise too_many_images(self._max_images)
        return sources, query

    async def _read_whole(self, request: Request, lease: BodyLease) -> bytes:
        """The whole body; a declared length over the limit is refused before anything is read."""
        # The HTTP parser takes nothing but a number.
        if int(request.headers.get("content-length", "0")) > self._max_bytes:
            raise _too_many_bytes(self._max_bytes)
        stream: AsyncIterable[bytes] = request.stream()
        if is_compressed(request.headers.get("content-encoding", "")):
            stream = decompressed(stream)
        chunks = []
        async for chunk in stream:
            if lease.held + len(chunk) > self._max_bytes:
                raise _too_many_bytes(self._max_bytes)
            lease.grow(len(chunk))
            chunks.append(chunk)
        return b"".join(chunks)


def _declared_kind(media_type: str) -> Kind | None:
    """What a body of this type is; None if the type says nothing.

    Raises:
        UnsupportedTypeError: It is something else.
    """
    if media_type.startswith("image/"):
        return "image"
    kind = KINDS.get(media_type)
    if kind is None and media_type.endswith("+json"):
        return "json"
    if kind is None and media_type not in UNSAID:
        raise UnsupportedTypeError(f"Content-Type is {media_type}; {ACCEPTED}")
    return kind


def _kind_by_content(body: bytes, media_type: str) -> Kind:
    """What a body is that nobody has named the type of.

    Raises:
        UnsupportedTypeError: Its first bytes do not tell.
    """
    if not body or has_image_signature(body):
        return "image"
    if body[:64].removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"{"):
        return "json"
    raise UnsupportedTypeError(
        f"Content-Type is {media_type or 'missing'}, and the body is neither JSON nor an image of "
        f"an accepted type; {ACCEPTED}"
    )


def _too_many_bytes(limit: int) -> TooLargeError:
    return TooLargeError(f"a request's body may have at most {limit} bytes")
