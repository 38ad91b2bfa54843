"""Which form of an answer a client asks for in its `Accept` header."""

from functools import lru_cache
from typing import Final

from service.errors import NotAcceptableError
from service.http.formats import MEDIA_TYPES, AnswerFormat
from service.imaging.draw import PictureType

# The first of equal weights is given, behind the format's own type, so that a client without a
# preference gets no picture.
PICTURES: Final[tuple[PictureType, ...]] = ("image/png", "image/jpeg")
# Some clients write these for */* and for image/jpeg.
OTHER_NAMES: Final = {"*": "*/*", "image/jpg": "image/jpeg"}
# Browsers and Java name the images that they can show, beside the pages that they rather want.
PAGE: Final = "text/html"


# Clients send the same few headers all the time.
@lru_cache(maxsize=128)
def wanted_picture(accept: bytes, answer: AnswerFormat = "json") -> PictureType | None:
    """The picture type that an Accept header prefers to an answer in text, or None.

    A header without a single valid range counts as absent.

    Args:
        accept: The header.
        answer: The format of an answer in text.

    Raises:
        NotAcceptableError: It asks for neither.
    """
    weights = _weights(accept.decode("latin-1"))
    if not weights or PAGE in weights:
        return None
    text = _quality(weights, MEDIA_TYPES[answer])
    best = max(PICTURES, key=lambda picture: _quality(weights, picture))
    if not max(text, _quality(weights, best)):
        raise _nothing_acceptable(answer)
    return best if _quality(weights, best) > text else None


def _nothing_acceptable(answer: AnswerFormat) -> NotAcceptableError:
    offered = ", ".join((MEDIA_TYPES[answer], *PICTURES))
    others = {name: kind for name, kind in MEDIA_TYPES.items() if kind != MEDIA_TYPES[answer]}
    hint = ", ".join(f"format={name} gives {kind}" for name, kind in others.items())
    return NotAcceptableError(
        f"Accept asks for none of what there is with format={answer}: {offered}; {hint}"
    )


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
