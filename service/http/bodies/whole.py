"""Reading a whole body, within the limits on bodies."""

from collections.abc import AsyncIterable

from fastapi import Request

from service.errors import TooLargeError
from service.http.access.note import NOTE, Note
from service.http.bodies.coding import decompressed, is_compressed
from service.http.bodies.memory import BodyLease


async def read_whole(request: Request, lease: BodyLease, max_bytes: int) -> bytes:
    """The whole body; a declared length over the limit is refused before anything is read.

    Args:
        request: The request.
        lease: Holds the memory of the body.
        max_bytes: Maximum length of the body, decompressed.

    Raises:
        TooLargeError: The body is longer.
        BusyError: All bodies together have too many bytes.
        MalformedRequestError: The body is compressed, and damaged.
        UnsupportedCodingError: It is compressed in a way that the server does not know.
    """
    # The HTTP parser takes nothing but a number.
    if int(request.headers.get("content-length", "0")) > max_bytes:
        raise too_many_bytes(max_bytes)
    note: Note = request.scope[NOTE]
    stream: AsyncIterable[bytes] = request.stream()
    coding = request.headers.get("content-encoding")
    if coding is not None and is_compressed(coding):
        stream = decompressed(stream)
    chunks = []
    async for chunk in stream:
        if lease.held + len(chunk) > max_bytes:
            raise too_many_bytes(max_bytes)
        lease.grow(len(chunk))
        note["bytes"] = lease.held
        chunks.append(chunk)
    return b"".join(chunks)


def too_many_bytes(limit: int) -> TooLargeError:
    """The error of a request whose body is longer than this."""
    return TooLargeError(f"a request's body may have at most {limit} bytes")
