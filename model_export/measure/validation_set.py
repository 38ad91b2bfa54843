"""Checked images as a set to measure on, whichever way they were annotated."""

from collections.abc import Iterator, Sequence

from model_export.data.annotations import AnnotatedImage
from model_export.measure.coco import CocoBox, CocoSet, make_coco_set


def coco_set(images: Sequence[AnnotatedImage], class_names: Sequence[str]) -> CocoSet:
    """The set that `model_export.measure.coco.measure` compares detections with.

    Category ids count from 1 in the order of the classes. Crowds are no more among the boxes, so
    that detections of them count as wrong; and areas, which tell small from large, are those of
    the boxes, also where COCO has masks.

    Args:
        images: With ids that differ, and boxes in image pixels.
        class_names: Class id to name.
    """
    files = {image.image_id: image.path for image in images}
    categories = dict(enumerate(class_names, start=1))
    return make_coco_set(files, categories, (box for image in images for box in _boxes(image)))


def _boxes(image: AnnotatedImage) -> Iterator[CocoBox]:
    rows = zip(image.boxes_xyxy.tolist(), image.class_ids.tolist(), strict=True)
    for (x1, y1, x2, y2), class_id in rows:
        bbox = [x1, y1, x2 - x1, y2 - y1]
        yield CocoBox(image_id=image.image_id, category_id=class_id + 1, bbox=bbox)
