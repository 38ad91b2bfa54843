"""The names of the models, in a module that does not import torch and so loads at once."""

from typing import Final, Literal, get_args

Variant = Literal[
    "pico", "nano", "micro", "tiny", "s", "m", "l", "x", "darknet53", "darknet53-article"
]
HeadKind = Literal["decoupled", "coupled"]

VARIANTS: Final[tuple[Variant, ...]] = get_args(Variant)
HEAD_KINDS: Final[tuple[HeadKind, ...]] = get_args(HeadKind)
# Parts that can be frozen: the five stages of the backbone, and the neck.
ALL_BUT_HEAD: Final = 6
# Variants for images of 416 pixels; they train with weaker augmentation.
SMALL: Final[frozenset[Variant]] = frozenset({"pico", "nano", "micro", "tiny"})


def usual_size(variant: Variant) -> int:
    """Side in pixels of a variant's square input, as in the release for the released variants."""
    return 416 if variant in SMALL else 640


def plain_variant(text: str) -> str:
    """`nano` for `nano`, `yolox-nano`, `yolox_nano` and `YOLOX-Nano`."""
    return text.lower().replace("_", "-").removeprefix("yolox-")
