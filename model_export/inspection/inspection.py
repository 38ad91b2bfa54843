"""The data of a training before its first step: counts, and what is probably wrong."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from model_export.data.annotations import first_few, plain_name
from model_export.data.checked_images import CheckedImages
from model_export.errors import ModelExportError
from model_export.inspection.near_duplicates import Duplicate, near_duplicates
from model_export.inspection.statistics import NetworkView, Statistics, aspects, statistics

# Letterboxed to an input of its own shape, an image of this aspect gains a quarter of the pixels.
WIDE: Final = 1.3
# Classes with fewer boxes are rarely learnt.
FEW_BOXES: Final = 10


@dataclass(frozen=True, slots=True)
class Inspection:
    """The data of a training.

    Attributes:
        view: How the network sees boxes.
        train: The images to learn from.
        val: The images to measure on, if there are any; of the same classes.
        train_statistics: The counts of `train`.
        val_statistics: The counts of `val`.
        duplicates: Images of `val` that look like one of `train`.
    """

    view: NetworkView
    train: CheckedImages
    val: CheckedImages | None
    train_statistics: Statistics
    val_statistics: Statistics | None
    duplicates: tuple[Duplicate, ...]

    def refuse_no_targets(self) -> None:
        """Refuse data that nothing can be learnt from.

        Raises:
            ModelExportError: There are no boxes, or all are too narrow at the network's size.
        """
        boxes = self.train_statistics.boxes
        if boxes == 0:
            raise ModelExportError(
                f"none of the {len(self.train)} training images has a box to learn from"
            )
        if self.train_statistics.lost == boxes:
            raise ModelExportError(f"no box can be learnt: {self._lost(self.train_statistics)}")

    def warnings(self) -> list[str]:
        """Lines for a person about what is probably wrong, the gravest first."""
        return [
            *self._class_warnings(),
            *self._size_warnings(),
            *self._duplicate_warnings(),
            *self._aspect_warnings(),
        ]

    def _class_warnings(self) -> Iterator[str]:
        names, train = self.train.class_names, self.train_statistics.classes
        val = self.val_statistics.classes if self.val_statistics else ()
        no_train = [name for name, each in zip(names, train, strict=True) if not each.boxes]
        in_val = {name for name, each in zip(names, val, strict=bool(val)) if each.boxes}
        if only_val := [name for name in no_train if name in in_val]:
            yield f"classes with boxes in the validation data alone: {first_few(only_val, 10)}"
        if none := [name for name in no_train if name not in in_val]:
            yield f"classes without boxes: {first_few(none, 10)}"
        if val and (unmeasured := [name for name in names if name not in {*in_val, *no_train}]):
            yield f"classes without boxes in the validation data: {first_few(unmeasured, 10)}"
        few = [name for name, each in zip(names, train, strict=True) if 0 < each.boxes < FEW_BOXES]
        if few:
            yield f"classes with fewer than {FEW_BOXES} boxes to learn from: {first_few(few, 10)}"
        if alike := _alike(names):
            yield f"class names that differ in case or blanks alone: {first_few(alike, 10)}"

    def _size_warnings(self) -> Iterator[str]:
        for part, counts in (("", self.train_statistics), ("validation: ", self.val_statistics)):
            if counts and counts.lost:
                yield part + self._lost(counts)

    def _lost(self, counts: Statistics) -> str:
        view = self.view
        of_class = [
            f"{name} {each.lost} of {each.boxes}"
            for name, each in zip(self.train.class_names, counts.classes, strict=True)
            if each.lost
        ]
        return (
            f"{counts.lost} of {counts.boxes} boxes are narrower than {view.min_side:g} pixels at "
            f"{view.width} x {view.height}, and are no targets ({first_few(of_class, 5)}): raise "
            "--size, or cut the images into tiles"
        )

    def _duplicate_warnings(self) -> Iterator[str]:
        if self.val and self.duplicates:
            pairs = [
                f"{self.val.images[each.second].path.name} like "
                f"{self.train.images[each.first].path.name}"
                for each in self.duplicates
            ]
            yield (
                f"{len(pairs)} validation images look like training images, so that the AP will be "
                f"too good: {first_few(pairs)}"
            )

    def _aspect_warnings(self) -> Iterator[str]:
        ratios = aspects(self.train_statistics.sizes)
        shape = self.view.width / self.view.height
        middle = float(ratios[len(ratios) // 2])
        if middle > shape * WIDE or middle * WIDE < shape:
            filled = min(middle / shape, shape / middle)
            yield (
                f"the images are {middle:.2g} times as wide as high, and fill {filled:.0%} of the "
                f"{self.view.width} x {self.view.height} pixels: choose --size HxW of their shape"
            )


def inspect(train: CheckedImages, val: CheckedImages | None, view: NetworkView) -> Inspection:
    """Look at the data of a training.

    Args:
        train: The images to learn from.
        val: The images to measure on, with the same classes.
        view: How the network sees boxes.
    """
    duplicates = near_duplicates(train, val) if val else []
    counts = statistics(val, view) if val else None
    return Inspection(view, train, val, statistics(train, view), counts, tuple(duplicates))


def _alike(names: Sequence[str]) -> list[str]:
    """Pairs of names that are the same but for their spelling."""
    first: dict[str, str] = {}
    pairs = []
    for name in names:
        other = first.setdefault(plain_name(name), name)
        if other != name:
            pairs.append(f"{other!r} and {name!r}")
    return pairs
