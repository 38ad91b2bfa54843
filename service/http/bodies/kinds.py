"""The kind of a body: its type names it, or else its first bytes show it."""

from functools import lru_cache
from typing import Final, Literal

from service.errors import UnsupportedTypeError
from service.http.bodies.json_form import BYTE_ORDER_MARK
from service.imaging.kinds import has_image_signature

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


# Clients send the same few types all the time.
@lru_cache(maxsize=128)
def media_type_of(content_type: str) -> str:
    """The type of a body without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


@lru_cache(maxsize=128)
def declared_kind(media_type: str) -> Kind | None:
    """The kind of a body of this type; None if the type says nothing.

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


def kind_by_content(body: bytes, media_type: str) -> Kind:
    """The kind of a body whose type says nothing.

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
