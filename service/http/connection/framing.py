"""Finding in a request's headers how long its body is, and whether HTTP allows them."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from service.errors import (
    MalformedRequestError,
    ServiceError,
    TransferCodingError,
    UnsupportedVersionError,
)

VERSIONS: Final = ("1.0", "1.1")


class Framing(NamedTuple):
    """Where a request ends.

    Attributes:
        body_length: The bytes of its body, or None if it comes in chunks.
    """

    body_length: int | None


def read_framing(headers: Iterable[tuple[bytes, bytes]], version: str) -> Framing | ServiceError:
    """Where a request ends, or why it is none (RFC 9112, sections 3.2 and 6).

    The parser refuses lengths that are no numbers or differ, and a length beside chunks.

    Args:
        headers: Names in lower case, and values.
        version: The request's version of HTTP, such as `1.1`; `0.9` where it names none.
    """
    if version not in VERSIONS:
        return alien_version(version)
    hosts, length, coding = 0, 0, b""
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            coding += b"," + value.strip().lower()
    if hosts > 1 or (not hosts and version != "1.0"):
        return MalformedRequestError("a request names the server in one Host header")
    if coding in {b"", b",chunked"}:
        return Framing(None if coding else length)
    return TransferCodingError("the only Transfer-Encoding that is understood is chunked")


def alien_version(version: str) -> ServiceError:
    """Why a request in this version of HTTP is refused."""
    if version == "0.9":
        return MalformedRequestError("the request line names no version of HTTP")
    return UnsupportedVersionError(f"this server speaks HTTP/1.1, and not HTTP/{version}")
