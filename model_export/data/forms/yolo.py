"""The reader of YOLO labels: a text file for each image, and a file that names the classes."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Final

from model_export.data.annotations import NamedBoxes, Reading, first_few
from model_export.data.forms.found_images import image_files, plain_file_name, similar_files
from model_export.data.forms.splits import subfolder
from model_export.data.forms.yolo_layout import LABEL_SUFFIX, YoloLayout
from model_export.data.image_files import header_size
from model_export.data.texts import read_text
from model_export.errors import ModelExportError

Corners = tuple[float, float, float, float]

# Boxes may stick out of an image a little; farther out, the numbers are pixels.
MAX_SHARE: Final = 2.0
# Polygons do so even less; a keypoint that is visible has a 2 beside its place.
MAX_POLYGON: Final = 1.5
# A corner is the sum of a centre, off by half of the last decimal, and half of a size.
ROUNDING: Final = 0.75
# A class, a box, and perhaps a confidence; a polygon has more.
MAX_BOX_FIELDS: Final = 6
# No text of a float64 needs more.
FULL_DECIMALS: Final = 17
# Labels are mostly of whole pixels, and shares of six decimals miss them by less than this.
MAX_SNAP: Final = 0.05
# Text files that lie among labels and are none, without the suffix.
NO_LABELS: Final = frozenset(
    {"classes", "labels", "train", "val", "valid", "test", "obj", "README"}
)


def read_yolo(layout: YoloLayout, split: str) -> Reading:
    """Read one split of YOLO labels.

    A line has a class number, then the centre, width and height of a box as shares of the image's
    width and height, and perhaps a confidence, or keypoints where the description has a
    `kpt_shape`; or a class number and the corners of a polygon, which becomes the box around it.
    Images without a label file are background.

    Args:
        layout: The places of the files, and the names of the classes.
        split: Which split.

    Raises:
        ModelExportError: A file is missing or damaged, or there is no such split.
    """
    listed = layout.images(split)
    paths = list(dict.fromkeys(listed))
    _refuse_shared_labels(paths)
    find = _LabelFinder().find
    labels = [find(path) for path in paths]
    background = [path.name for path, label in zip(paths, labels, strict=True) if label is None]
    if paths and not any(path.exists() for path in paths):
        raise ModelExportError(
            f"{layout.source}: none of the {len(paths)} images of {split} is there; the first "
            f"would be {paths[0]}"
        )
    if paths and len(background) == len(paths):
        raise ModelExportError(
            f"{layout.source}: none of the {len(paths)} images of {split} has a label file; "
            f"{paths[0].name} should have {_label_places(paths[0])[0]}"
        )
    numbers = range(1, len(paths) + 1)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        read = list(threads.map(partial(_image, layout), paths, labels, numbers))
    images, polygons = [image for image, _ in read], sum(count for _, count in read)
    notes = list(_lone_labels(paths, labels))
    if len(paths) < len(listed):
        twice = [path.name for path, count in Counter(listed).items() if count > 1]
        notes.append(f"listed more than once, and counted once: {first_few(twice)}")
    if not layout.keypoints and polygons:
        notes.append(
            f"{polygons} polygons became the boxes around them; if they are boxes and keypoints, "
            "say so in data.yaml, such as `kpt_shape: [17, 3]`"
        )
    if background:
        count = len(background)
        notes.append(f"{count} images without labels are background: {first_few(background)}")
    return Reading(layout.source, images, layout.class_names, numbered=True, notes=tuple(notes))


def _label_places(image: Path) -> list[Path]:
    """Where an image may have its labels: in `labels` for the last `images`, or beside it."""
    parts = list(image.parts)
    places = [image]
    lower = [part.lower() for part in parts]
    if "images" in lower:
        at = len(parts) - 1 - lower[::-1].index("images")
        labels = subfolder(Path(*parts[:at]), "labels") or Path(*parts[:at], "labels")
        places.insert(0, labels.joinpath(*parts[at + 1 :]))
    return [place.with_suffix(LABEL_SUFFIX) for place in places]


class _LabelFinder:
    """Finds label files, also where case or the writing of accents differ from the image's."""

    def __init__(self) -> None:
        self._listed = cache(similar_files)

    def find(self, image: Path) -> Path | None:
        """The label file of an image, if there is one.

        Raises:
            ModelExportError: Two names differ from the image's in case only.
        """
        places = _label_places(image)
        for path in places:
            similar = self._listed(path.parent).get(plain_file_name(path.name), [])
            if path in similar:
                return path
            if len(similar) > 1:
                names = " and ".join(each.name for each in similar)
                raise ModelExportError(
                    f"{path.parent}: {names} may both be the labels of {image.name}; remove one"
                )
            if similar:
                return similar[0]
        return None


def _refuse_shared_labels(paths: Sequence[Path]) -> None:
    for stem, count in Counter(path.with_suffix("") for path in paths).items():
        if count > 1:
            names = " and ".join(path.name for path in paths if path.with_suffix("") == stem)
            raise ModelExportError(
                f"{stem.parent}: {names} would share one label file; remove or rename one of them"
            )


def _lone_labels(paths: Sequence[Path], labels: Sequence[Path | None]) -> Iterator[str]:
    """A note if there are labels of images that are not there, in the folders of the others."""
    places = {
        (label.parent, path.parent) for path, label in zip(paths, labels, strict=True) if label
    }
    for folder in sorted({folder for folder, _ in places}):
        known = {
            plain_file_name(path.stem)
            for place in {folder, *(images for each, images in places if each == folder)}
            for path in image_files(place)
        }
        lone = [
            path.name
            for path in sorted(folder.iterdir())
            if path.suffix.lower() == LABEL_SUFFIX
            and plain_file_name(path.stem) not in known
            and path.stem not in NO_LABELS
            and not path.name.startswith(".")
        ]
        if lone:
            yield f"{folder}: {len(lone)} label files have no image: {first_few(lone)}"


def _image(
    layout: YoloLayout, path: Path, label: Path | None, number: int
) -> tuple[NamedBoxes, int]:
    """The boxes of an image, and how many lines of its labels are longer than a box."""
    size = header_size(path)
    if label is None or size is None:
        # A file without a size is refused when its pixels are read.
        return NamedBoxes(path, number, size, (), ()), 0
    corners, classes, longer = [], [], 0
    for at, line in enumerate(read_text(label).splitlines(), start=1):
        if fields := line.split():
            with _located(label, at):
                corners.append(_corners(fields[1:], size, layout.keypoints))
                classes.append(_class_name(fields[0], layout.class_names))
            longer += len(fields) > MAX_BOX_FIELDS
    return NamedBoxes(path, number, size, corners, classes), longer


@contextmanager
def _located(label: Path, line: int) -> Iterator[None]:
    """Turn complaints about a line into errors that name it."""
    try:
        yield
    except ValueError as error:
        raise ModelExportError(f"{label}, line {line}: {error}") from error


def _class_name(text: str, names: Sequence[str]) -> str:
    number = _number(text)
    if not number.is_integer() or number < 0:
        raise ValueError(f"the class {text} is no whole number from 0")
    if number >= len(names):
        raise ValueError(
            f"the class {text} has no name, because the last of {len(names)} names is for "
            f"{len(names) - 1}; add it to the names, or correct the line"
        )
    return names[int(number)]


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is no number; write class, centre x and y, width, height")
    return number


def _corners(fields: Sequence[str], size: tuple[int, int], keypoints: int) -> Corners:
    """A box in pixels, of the four shares of a box or of a polygon's corners."""
    if keypoints and len(fields) > 5:
        if len(fields) != 4 + keypoints:
            raise ValueError(
                f"a line has a class, 4 numbers of a box and, by `kpt_shape`, {keypoints} of "
                f"keypoints; this one has {len(fields)} numbers after the class"
            )
        fields = fields[:4]
    numbers = [_number(text) for text in fields]
    if len(numbers) < 4 or (len(numbers) > 5 and len(numbers) % 2):
        raise ValueError(
            f"a line has a class and 4 numbers, or a class and a polygon of x and y; this one has "
            f"{len(numbers)} numbers after the class"
        )
    if max(map(abs, numbers)) > MAX_SHARE:
        raise ValueError(
            f"{max(numbers, key=abs):g} is no share of the image; divide x and widths by its "
            "width, y and heights by its height"
        )
    if len(numbers) > 5 and max(numbers) >= MAX_POLYGON:
        raise ValueError(
            f"{max(numbers):g} is no corner of a polygon; if the line has a box and keypoints, say "
            "so in data.yaml, such as `kpt_shape: [17, 3]`"
        )
    shares = _around(numbers) if len(numbers) > 5 else _of_centre(*numbers[:4])
    error = ROUNDING * 10.0 ** -max(map(_decimals, fields))
    height, width = size
    x1, y1, x2, y2 = (
        _snapped(share * side, error * side)
        for share, side in zip(shares, (width, height, width, height), strict=True)
    )
    return x1, y1, x2, y2


def _around(polygon: Sequence[float]) -> Corners:
    x, y = polygon[::2], polygon[1::2]
    return min(x), min(y), max(x), max(y)


def _of_centre(x: float, y: float, width: float, height: float) -> Corners:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _decimals(text: str) -> int:
    return FULL_DECIMALS if "e" in text.lower() else len(text.partition(".")[2])


def _snapped(pixels: float, error: float) -> float:
    """A whole pixel, if rounding in the text alone keeps the number from being one."""
    whole = round(pixels)
    return float(whole) if abs(pixels - whole) <= error <= MAX_SNAP else pixels
