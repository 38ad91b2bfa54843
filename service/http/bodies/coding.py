"""Bodies that the client compressed, as their `Content-Encoding` says."""

import zlib
from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

from service.errors import MalformedRequestError, UnsupportedCodingError
from service.http.bodies.turns import Turns

INFLATED: Final = ("gzip", "x-gzip", "deflate")
# zlib's number for its largest window, with a header of gzip or of zlib.
EITHER_HEADER: Final = 32 + zlib.MAX_WBITS
# Takes a fraction of a millisecond. A whole chunk could grow to a thousand times its length.
PIECE_BYTES: Final = 64 * 1024


def is_compressed(content_encoding: str) -> bool:
    """Whether a body has to be decompressed, by its `Content-Encoding`.

    Raises:
        UnsupportedCodingError: The server cannot decompress it.
    """
    coding = content_encoding.strip().lower()
    if coding in INFLATED:
        return True
    if coding in ("", "identity"):
        return False
    raise UnsupportedCodingError(
        f"Content-Encoding is {coding}; compress the body with gzip or deflate, or not at all"
    )


async def decompressed(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Decompress a body while it comes, in pieces of at most `PIECE_BYTES`.

    The receiver counts the bytes and stops at its limit, so that a bomb is never unpacked whole.

    Raises:
        MalformedRequestError: The data is damaged, cut short, or goes on after its end.
    """
    inflater, turns = zlib.decompressobj(EITHER_HEADER), Turns()
    async for chunk in chunks:
        rest, is_more = chunk, bool(chunk)
        while is_more:
            piece = _inflate(inflater, rest)
            rest = inflater.unconsumed_tail
            # A full piece may leave output behind in the decompressor, though no input is left.
            is_more = bool(rest) or len(piece) == PIECE_BYTES
            yield piece
            await turns.offer()
    if not inflater.eof:
        raise MalformedRequestError("the compressed body is cut short")


def _inflate(inflater: "zlib._Decompress", data: bytes) -> bytes:
    try:
        piece = inflater.decompress(data, PIECE_BYTES)
    except zlib.error as error:
        raise MalformedRequestError(
            "Content-Encoding says that the body is compressed, and it is not, or it is damaged; "
            "leave the header out for a plain body"
        ) from error
    if inflater.unused_data:
        raise MalformedRequestError("the compressed body goes on after its end")
    return piece
