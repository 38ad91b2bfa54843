"""Annotated images in memory, whichever form of data set they were read from."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_export.errors import ModelExportError

# Pixels are hardly all below it; shares may stick out of the image a little.
MAX_SHARE: Final = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class AnnotatedImage:
    """An image file and the objects that the annotations put on it.

    Attributes:
        path: The image file.
        image_id: COCO's id; in a VOC folder, the position in the split, from 1.
        size: Height and width in pixels, upright, if the annotations state them.
        boxes_xyxy: (K, 4) float32, image pixels.
        class_ids: (K,) int64.
    """

    path: Path
    image_id: int
    size: tuple[int, int] | None
    boxes_xyxy: NDArray[np.float32]
    class_ids: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Annotations:
    """The content of a data set, before any image file has been opened.

    Attributes:
        class_names: Class id to name.
        images: In the order of the data set; boxes exactly as written, even impossible ones.
        crowd: The number of crowd annotations, which are left out.
        notes: How the files were read, and what was left out, in lines for a person.
    """

    class_names: tuple[str, ...]
    images: tuple[AnnotatedImage, ...]
    crowd: int = 0
    notes: tuple[str, ...] = ()


class NamedBoxes(NamedTuple):
    """The boxes of one image, with class names where `AnnotatedImage` has ids.

    Attributes:
        path: The image file.
        image_id: As in `AnnotatedImage`.
        size: As in `AnnotatedImage`.
        corners: K times x1, y1, x2, y2 in image pixels.
        names: K class names.
    """

    path: Path
    image_id: int
    size: tuple[int, int] | None
    corners: Sequence[tuple[float, float, float, float]]
    names: Sequence[str]


@dataclass(frozen=True, slots=True)
class Reading:
    """One split of a data set as its files have it.

    Attributes:
        source: The data set, for error messages.
        images: The images and their boxes.
        class_names: Class id to name: as the files number them, else those of the boxes, sorted.
        numbered: Whether the files number the classes.
        crowd: The number of crowd annotations, which are left out.
        notes: How the files were read, and what was left out, in lines for a person.
    """

    source: Path
    images: Sequence[NamedBoxes]
    class_names: tuple[str, ...]
    numbered: bool
    crowd: int = 0
    notes: tuple[str, ...] = ()

    def annotations(self, class_names: Sequence[str] | None = None) -> Annotations:
        """The same data with class ids.

        Args:
            class_names: Class id to name (default: the data set's own).

        Raises:
            ModelExportError: There are no images or no classes, or a box has a class that is not in
                `class_names`, or the boxes seem to be shares of the images, not pixels.
        """
        names = tuple(class_names or self.class_names)
        _refuse_shares(self.images)
        return Annotations(
            names, number_classes(self.source, self.images, names), self.crowd, self.notes
        )


def _refuse_shares(images: Sequence[NamedBoxes]) -> None:
    """See that no image has boxes of shares, which would lie in its first pixel."""
    of_shares = [image for image in images if _are_shares(image)]
    if of_shares:
        raise ModelExportError(
            f"{of_shares[0].path}: all coordinates are below {MAX_SHARE:g}, so that they seem to "
            f"be shares of the image ({len(of_shares)} of {len(images)} images); multiply x and "
            "widths by the width of the image, y and heights by its height"
        )


def _are_shares(image: NamedBoxes) -> bool:
    if any(number > MAX_SHARE for corners in image.corners for number in corners):
        return False
    numbers = [number for corners in image.corners for number in corners]
    return not all(map(float.is_integer, filter(math.isfinite, numbers)))


def names_in(images: Iterable[NamedBoxes]) -> tuple[str, ...]:
    """The class names of boxes, sorted, for data sets that do not number them."""
    return tuple(sorted({name for image in images for name in image.names}))


def number_classes(
    source: Path, images: Sequence[NamedBoxes], class_names: Sequence[str]
) -> tuple[AnnotatedImage, ...]:
    """Replace class names by ids, which are positions in `class_names`.

    Args:
        source: The data set, for error messages.
        images: The boxes of each image.
        class_names: Class id to name.

    Raises:
        ModelExportError: There are no images or no classes, a name occurs twice in `class_names`,
            or one is no text that a file can hold, or a box has a class that is not in it.
    """
    ids = {name: class_id for class_id, name in enumerate(class_names)}
    if not images or not ids:
        why = "classes, because it has no boxes" if images else "images"
        raise ModelExportError(f"{source} lists no {why}")
    if len(ids) < len(class_names):
        twin = next(name for name in class_names if class_names.count(name) > 1)
        raise ModelExportError(f"{source}: two classes are called {twin!r}; rename one of them")
    if broken := [name for name in ids if not name.isascii() and not _is_text(name)]:
        raise ModelExportError(
            f"{source}: the class {broken[0]!r} has half of a character; correct its name"
        )
    unknown = sorted({name for image in images for name in image.names} - ids.keys())
    if unknown:
        raise ModelExportError(_beyond(source, unknown, class_names))
    return tuple(
        AnnotatedImage(
            path=image.path,
            image_id=image.image_id,
            size=image.size,
            boxes_xyxy=_boxes(image.corners),
            class_ids=np.array([ids[name] for name in image.names], dtype=np.int64),
        )
        for image in images
    )


def _boxes(corners: Sequence[tuple[float, float, float, float]]) -> NDArray[np.float32]:
    # A number beyond float32 becomes infinite, and its box is no target.
    with np.errstate(over="ignore"):
        return np.array(corners, dtype=np.float64).reshape(-1, 4).astype(np.float32)


def _is_text(name: str) -> bool:
    """Whether UTF-8 can hold a name; JSON may have halves of characters."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _beyond(source: Path, unknown: Sequence[str], class_names: Sequence[str]) -> str:
    """The complaint about classes that the model lacks, perhaps only in this spelling."""
    like = {plain_name(name): name for name in class_names}
    same = [
        f"{name!r} is like {like[plain_name(name)]!r}"
        for name in unknown
        if plain_name(name) in like
    ]
    hint = f"; perhaps only the spelling differs: {', '.join(same)}" if same else ""
    return f"{source} has classes beyond the model's: {', '.join(unknown)}{hint}"


def plain_name(name: str) -> str:
    """A class name without what people mistype in it: case, blanks, hyphens and underscores."""
    return "".join(letter for letter in name.casefold() if letter not in " \t-_")


def known_size(height: float | str | None, width: float | str | None) -> tuple[int, int] | None:
    """The size that annotations state; many tools write none, or 0 if they did not know it."""
    known = int(float(height or 0)), int(float(width or 0))
    return known if min(known) > 0 else None


def first_few(texts: Iterable[object], limit: int = 3) -> str:
    """The first few of many things, for one line of a message, and how many more there are."""
    every = [str(text) for text in texts]
    rest = len(every) - limit
    return ", ".join(every[:limit]) + (f" and {rest} more" if rest > 0 else "")
