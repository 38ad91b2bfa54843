"""Which form of an answer a client asks for in its `Accept` header."""

from functools import lru_cache
from typing import Final

from service.errors import NotAcceptableError
from service.imaging.draw import PictureType

# The first of equal weights is given, so that a client without a preference gets JSON.
OFFERS: Final[tuple[tuple[str, PictureType | None], ...]] = (
    ("application/json", None),
    ("image/png", "image/png"),
    ("image/jpeg", "image/jpeg"),
)
# Some clients write these for */* and for image/jpeg.
OTHER_NAMES: Final = {"*": "*/*", "image/jpg": "image/jpeg"}
# Browsers and Java name the images that they can show, beside the pages that they rather want.
PAGE: Final = "text/html"


# Clients send the same few headers all the time.
@lru_cache(maxsize=128)
def wanted_picture(accept: bytes) -> PictureType | None:
    """The picture type that an Accept header prefers to JSON, or None if it prefers JSON.

    A header without a single valid range counts as absent.

    Raises:
        NotAcceptableError: It asks for neither.
    """
    weights = _weights(accept.decode("latin-1"))
    if not weights or PAGE in weights:
        return None
    best = max(OFFERS, key=lambda offer: _quality(weights, offer[0]))
    if not _quality(weights, best[0]):
        offered = ", ".join(media_type for media_type, _ in OFFERS)
        raise NotAcceptableError(f"Accept asks for none of what there is: {offered}")
    return best[1]


def _weights(accept: str) -> dict[str, float]:
    """The weight of each media range that is well formed."""
    weights: dict[str, float] = {}
    for item in accept.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        name = OTHER_NAMES.get(name, name)
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            weight = float(quality)
        except ValueError:
            continue
        if "/" in name and 0 <= weight <= 1:
            weights[name] = weight
    return weights


def _quality(weights: dict[str, float], media_type: str) -> float:
    """The weight of a media type, by its most specific range."""
    kind = media_type.partition("/")[0]
    ranges = (media_type, f"{kind}/*", "*/*")
    return next((weights[name] for name in ranges if name in weights), 0.0)
