"""The names of the models, for those who must not wait for torch to load."""

from typing import Final, Literal, get_args

Variant = Literal[
    "pico", "nano", "micro", "tiny", "s", "m", "l", "x", "darknet53", "darknet53-article"
]
HeadKind = Literal["decoupled", "coupled"]

VARIANTS: Final[tuple[Variant, ...]] = get_args(Variant)
HEAD_KINDS: Final[tuple[HeadKind, ...]] = get_args(HeadKind)
# Those for images of 416 pixels, which learn from samples that vary less.
SMALL: Final[frozenset[Variant]] = frozenset({"pico", "nano", "micro", "tiny"})


def usual_size(variant: Variant) -> int:
    """Side in pixels of the square that a variant, as released if it was, is made for."""
    return 416 if variant in SMALL else 640
