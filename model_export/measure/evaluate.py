"""Running any detector on every image of a COCO data set."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from model_export.errors import ModelExportError
from model_export.measure.coco import CocoResult, CocoSet


@dataclass(frozen=True, slots=True)
class Found:
    """One detection; the box is x1, y1, x2, y2 in image pixels."""

    class_name: str
    score: float
    box_xyxy: tuple[float, float, float, float]


class Detector(Protocol):
    """Finds objects in the bytes of an image file."""

    def class_names(self) -> tuple[str, ...]:
        """The names of its classes."""

    def detect(self, image: bytes) -> Sequence[Found]:
        """Find objects; called from several threads at once.

        Raises:
            ModelExportError: The image cannot be decoded, or the detector fails.
        """


@dataclass(frozen=True, slots=True)
class OneClass:
    """A detector whose classes count as one.

    Attributes:
        detector: The detector.
        name: The name of the class.
    """

    detector: Detector
    name: str

    def class_names(self) -> tuple[str, ...]:
        """The one name."""
        return (self.name,)

    def detect(self, image: bytes) -> Sequence[Found]:
        """Find objects of any class.

        Raises:
            ModelExportError: The image cannot be decoded, or the detector fails.
        """
        return [replace(each, class_name=self.name) for each in self.detector.detect(image)]


def detect_all(
    detector: Detector, coco: CocoSet, *, concurrency: int, on_image: Callable[[], None]
) -> list[CocoResult]:
    """Run a detector on every image of a set.

    Detections of classes that the set does not have are left out.

    Args:
        detector: The detector to measure.
        coco: The images and their categories, matched to the detector's classes by name.
        concurrency: The number of images in flight at once.
        on_image: Called after each image.

    Returns:
        All detections, image by image in the order of the set.

    Raises:
        ModelExportError: No class matches, or an image fails; the message names its file.
    """
    category_ids = match_categories(detector.class_names(), coco)
    with ThreadPoolExecutor(concurrency) as executor:
        futures = {
            executor.submit(_detect_file, detector, path): image
            for image, path in coco.images.items()
        }
        try:
            found = {}
            for future in as_completed(futures):
                found[futures[future]] = future.result()
                on_image()
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    return [
        coco_result(image, category_ids[item.class_name], item)
        for image in coco.images
        for item in found[image]
        if item.class_name in category_ids
    ]


def match_categories(class_names: Sequence[str], coco: CocoSet) -> dict[str, int]:
    """Class name to category id, for the names that the detector and the set share.

    Raises:
        ModelExportError: They share none.
    """
    ids = {name: category for category, name in coco.categories.items()}
    matches = {name: ids[name] for name in class_names if name in ids}
    if not matches:
        raise ModelExportError(
            f"no class matches by name: the model knows {_some(class_names)}; "
            f"the annotations have {_some(list(ids))}"
        )
    return matches


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _detect_file(detector: Detector, path: Path) -> Sequence[Found]:
    try:
        return detector.detect(path.read_bytes())
    except (OSError, ModelExportError) as error:
        raise ModelExportError(f"{path}: {error}") from error


def coco_result(image_id: int, category_id: int, found: Found) -> CocoResult:
    """A detection in COCO's result format."""
    x1, y1, x2, y2 = found.box_xyxy
    return CocoResult(
        image_id=image_id,
        category_id=category_id,
        bbox=[x1, y1, x2 - x1, y2 - y1],
        score=found.score,
    )
