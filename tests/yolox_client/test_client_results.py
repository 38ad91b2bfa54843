"""Results as COCO, YOLO, supervision and a picture."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model_export.data.class_names import COCO_CLASS_NAMES
from support.pictures import encode, photo_like
from yolox_client import Box, Detection, ImageResult, coco, coco_dataset

CAT = Detection(Box(1.0, 2.0, 11.0, 22.0), 0.9, 0.95, 0.97, 0, "cat")
OWL = Detection(Box(0.0, 0.0, 40.0, 30.0), 0.5, 0.6, 0.8, 2, "owl")
RESULT = ImageResult("a.jpg", 40, 30, (CAT, OWL))
EMPTY = ImageResult("b.jpg", 10, 10)
RGB = photo_like(40, 30)


def test_a_coco_dataset_has_the_classes_that_were_found() -> None:
    dataset = coco_dataset([RESULT, EMPTY])
    assert dataset["images"] == [
        {"id": 1, "file_name": "a.jpg", "width": 40, "height": 30},
        {"id": 2, "file_name": "b.jpg", "width": 10, "height": 10},
    ]
    first = {"id": 1, "image_id": 1, "category_id": 0, "bbox": [1, 2, 10, 20], "area": 200}
    assert dataset["annotations"][0] == first | {"iscrowd": 0, "score": 0.9}
    assert dataset["categories"] == [{"id": 0, "name": "cat"}, {"id": 2, "name": "owl"}]
    named = RESULT.to_coco(["cat", "dog", "owl"])["categories"]
    assert [category["name"] for category in named] == ["cat", "dog", "owl"]


def test_cocos_names_have_cocos_own_ids() -> None:
    assert coco.NAMES == COCO_CLASS_NAMES
    # As in instances_val2017.json.
    known = {
        "person": 1,
        "stop sign": 13,
        "cat": 17,
        "dining table": 67,
        "tv": 72,
        "toothbrush": 90,
    }
    assert {name: coco.IDS[name] for name in known} == known
    brush = Detection(Box(0, 0, 1, 1), 0.5, 0.5, 0.9, 79, "toothbrush")
    dataset = ImageResult("a.jpg", 4, 4, (brush,)).to_coco(coco.NAMES)
    assert dataset["annotations"][0]["category_id"] == 90
    assert dataset["categories"][-1] == {"id": 90, "name": "toothbrush"}
    assert len(dataset["categories"]) == 80


def test_yolo_labels_are_fractions() -> None:
    first, second = RESULT.to_yolo().splitlines()
    assert first == "0 0.150000 0.400000 0.250000 0.666667 0.900000"
    assert second == "2 0.500000 0.500000 1.000000 1.000000 0.500000"
    assert RESULT.to_yolo(scores=False).splitlines()[0] == first.rpartition(" ")[0]
    assert EMPTY.to_yolo() == ""


def test_supervision_takes_them() -> None:
    found = RESULT.to_supervision()
    assert np.array_equal(found.xyxy, [[1, 2, 11, 22], [0, 0, 40, 30]])
    assert found.class_id is not None
    assert found.class_id.tolist() == [0, 2]
    assert found.data["class_name"].tolist() == ["cat", "owl"]
    assert found.confidence == pytest.approx([0.9, 0.5])
    assert len(EMPTY.to_supervision()) == 0


@pytest.mark.parametrize(
    ("image", "channels"),
    [(RGB, "RGB"), (RGB[:, :, ::-1], "BGR"), (encode(RGB), None), (Image.fromarray(RGB), None)],
)
def test_boxes_are_drawn_onto_any_form_of_the_image(image: Any, channels: Any) -> None:
    picture = RESULT.draw(image, channels=channels)
    assert (picture.size, picture.mode) == ((40, 30), "RGB")
    drawn = np.asarray(picture)
    assert (drawn != RGB).any()
    assert np.array_equal(ImageResult("a", 40, 30).draw(image, channels=channels), RGB)


def test_a_turned_photo_is_drawn_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encode(RGB, "JPEG", exif=exif)
    assert ImageResult("a", 30, 40).draw(content).size == (30, 40)
    with pytest.raises(ValueError, match="40 x 30 pixels, and this one has 30 x 40"):
        RESULT.draw(io.BytesIO(content))
