"""Results as a COCO dataset, with COCO's own category ids where the classes are COCO's."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from yolox_client.results import Detection, ImageResult

PIXEL_DIGITS: Final = 2
# In their order; COCO numbers its categories from 1 to 90 and leaves out ten.
NAMES: Final = tuple(
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,"
    "stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,"
    "backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,"
    "baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,"
    "banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,"
    "oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,"
    "toothbrush".split(",")
)
UNUSED_IDS: Final = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
IDS: Final[Mapping[str, int]] = dict(
    zip(NAMES, (number for number in range(1, 91) if number not in UNUSED_IDS), strict=True)
)


def category_ids(class_names: Iterable[str]) -> dict[str, int] | None:
    """COCO's own id of each class name; None if one of the names is not COCO's."""
    names = list(class_names)
    return {name: IDS[name] for name in names} if all(name in IDS for name in names) else None


def coco_dataset(
    results: Sequence["ImageResult"],
    class_names: Sequence[str] | None = None,
    *,
    first_id: int = 1,
) -> dict[str, Any]:
    """A COCO dataset of several images; its `annotations` are COCO results as well.

    Images that could not be used are left out, and their id with them.

    Args:
        results: The images, each with its detections.
        class_names: All names of the model, for `categories`; by default those that were found.
        first_id: The id of the first image.
    """
    names = class_names if class_names is not None else _found_names(results)
    own_ids = category_ids(name for name in names if name)
    images, annotations = [], []
    for image_id, result in enumerate(results, first_id):
        if result.error is None:
            images.append(coco_image(result, image_id))
            annotations += [annotation(found, image_id, own_ids) for found in result.detections]
    numbered = [{"id": number} | each for number, each in enumerate(annotations, 1)]
    return {
        "images": images,
        "annotations": numbered,
        "categories": categories(names, own_ids),
    }


def coco_image(result: "ImageResult", image_id: int) -> dict[str, Any]:
    """The entry of one image."""
    size = {"width": result.width, "height": result.height}
    return {"id": image_id, "file_name": result.filename or ""} | size


def annotation(
    found: "Detection", image_id: int, own_ids: Mapping[str, int] | None
) -> dict[str, Any]:
    """The entry of one object, without an id.

    Args:
        found: The object.
        image_id: The id of its image.
        own_ids: Ids by class name, if not the class ids.
    """
    x1, y1, x2, y2 = found.box
    width, height = x2 - x1, y2 - y1
    track = {} if found.track_id is None else {"track_id": found.track_id}
    return {
        "image_id": image_id,
        "category_id": found.class_id if own_ids is None else own_ids[found.class_name],
        "bbox": [round(value, PIXEL_DIGITS) for value in (x1, y1, width, height)],
        "area": round(width * height, PIXEL_DIGITS),
        "iscrowd": 0,
        "score": found.score,
    } | track


def categories(names: Sequence[str], own_ids: Mapping[str, int] | None) -> list[dict[str, Any]]:
    """The entries of all classes; an empty name is a class id that nobody has named."""
    return [
        {"id": number if own_ids is None else own_ids[name], "name": name}
        for number, name in enumerate(names)
        if name
    ]


def _found_names(results: Sequence["ImageResult"]) -> list[str]:
    """The class names by class id, as far as they occur; the others are empty."""
    found = {each.class_id: each.class_name for each in _all_found(results)}
    return [found.get(number, "") for number in range(max(found, default=-1) + 1)]


def _all_found(results: Sequence["ImageResult"]) -> Iterator["Detection"]:
    return (found for result in results for found in result.detections)
