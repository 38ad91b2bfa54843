"""Holds out a share of a data set's images for validation."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from model_export.data.annotations import NamedBoxes
from model_export.data.sources import Share
from model_export.errors import ModelExportError

# Roboflow's augmented copies of a picture: the name of the picture, and a hash of the copy.
ROBOFLOW_COPY: Final = re.compile(r"(.+)\.rf\.[0-9a-zA-Z]+")
# Stands for images without objects, which are shared out like a class.
BACKGROUND: Final = ""


def share_of(images: Sequence[NamedBoxes], share: Share) -> list[NamedBoxes]:
    """The images of a share, in their order.

    Each class has about the same share of its boxes held out, the rarest first, as in the iterative
    stratification of Sechidis, Tsoumakas and Vlahavas (2011). Copies of one picture stay together:
    files of the same bytes, and Roboflow's augmented copies.

    Args:
        images: All images.
        share: Which of them to take.

    Raises:
        ModelExportError: One of the parts would be empty.
    """
    held = _held_out(_groups(images), share)
    taken = [image for image in images if (image.path in held) == share.held_out]
    if not taken or len(taken) == len(images):
        raise ModelExportError(
            f"{len(images)} images are too few to hold out a share of {share.fraction:g} of them"
        )
    return taken


def _groups(images: Iterable[NamedBoxes]) -> list[list[NamedBoxes]]:
    """The images, copies of one picture together, in the order of the names."""
    images = sorted(images, key=lambda image: (image.path.name, image.path))
    contents = _repeated_contents(images)
    groups = defaultdict(list)
    for image in images:
        copy = ROBOFLOW_COPY.fullmatch(image.path.stem)
        groups[copy[1] if copy else contents.get(image.path, str(image.path))].append(image)
    return list(groups.values())


def _repeated_contents(images: Iterable[NamedBoxes]) -> Mapping[Path, str]:
    """A hash of each file that is as long as another one."""
    of_length = defaultdict(list)
    for image in images:
        if image.path.is_file():
            of_length[image.path.stat().st_size].append(image.path)
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for paths in of_length.values()
        if len(paths) > 1
        for path in paths
    }


def _held_out(groups: Sequence[Sequence[NamedBoxes]], share: Share) -> set[Path]:
    counts = [_class_counts(group) for group in groups]
    totals = sum(counts, Counter[str]())
    lacking = _Lacking(totals, share.fraction)
    left = dict.fromkeys(np.random.default_rng(share.seed).permutation(len(groups)).tolist())
    last = next(reversed(left), 0)
    held = set[int]()
    for name in sorted(totals, key=lambda each: (totals[each], each)):
        # The fullest first, so that the others can even things out.
        for at in sorted((i for i in left if name in counts[i]), key=lambda i: -counts[i][name]):
            if lacking.in_held_out(name, counts[at][name]):
                held.add(at)
            lacking.give(counts[at], to_held_out=at in held)
            del left[at]
    return {image.path for at in held or {last} for image in groups[at]}


class _Lacking:
    """The boxes of each class that the two parts still lack."""

    def __init__(self, totals: Mapping[str, int], fraction: float) -> None:
        self._ratio = fraction / (1 - fraction)
        self._held_out = {name: total * fraction for name, total in totals.items()}
        self._others = {name: total * (1 - fraction) for name, total in totals.items()}

    def in_held_out(self, name: str, boxes: int) -> bool:
        """Whether boxes of a class belong to the part that is held out, which is the needier one.

        It takes no more than the nearest number to its share, so that the single box of a class is
        for training.
        """
        held_out, others = self._held_out[name], self._others[name]
        return held_out >= boxes / 2 and held_out > others * self._ratio

    def give(self, counts: Mapping[str, int], *, to_held_out: bool) -> None:
        """Take the boxes of an image from what its part lacks."""
        part = self._held_out if to_held_out else self._others
        for name, boxes in counts.items():
            part[name] -= boxes


def _class_counts(group: Sequence[NamedBoxes]) -> Counter[str]:
    """The boxes of each class, and the images without any."""
    return Counter(name for image in group for name in (image.names or (BACKGROUND,)))
