"""A training measures on the same boxes, whichever form the validation data are in."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from model_export.data.reading import read_source
from model_export.data.sources import DataSource, Share
from model_export.measure.coco import CocoResult, measure
from model_export.measure.validation_data import read_validation_set
from support import data_forms as forms

HELD_OUT = Share(0.5, 1, held_out=True)


@pytest.mark.parametrize("name", forms.FORMS)
def test_every_form_is_measured_alike(name: str, tmp_path: Path) -> None:
    data = read_validation_set(DataSource(forms.FORMS[name](tmp_path)), forms.NAMES)
    results = [
        CocoResult(
            image_id=image_id,
            category_id=next(k for k, each in data.coco.categories.items() if each == box.name),
            bbox=[box.x1, box.y1, box.x2 - box.x1 - 2, box.y2 - box.y1],
            score=0.5,
        )
        for image_id, path in data.coco.images.items()
        for box in forms.IMAGES[path.name][:1]
    ]
    found = measure(data.coco, results)
    assert len(data.coco.images) == 4
    # Found are the cat, one of two birds and one of two dogs; precision is sampled at 101 recalls.
    half = 51 / 101
    assert found.ap50_by_class == pytest.approx({"bird": half, "cat": 1.0, "dog": half})


def test_a_share_is_measured_with_its_crowds_alone(tmp_path: Path) -> None:
    source = forms.coco_beside(tmp_path)
    content = json.loads(source.read_text())
    for each in content["annotations"]:
        each["iscrowd"] = int(each["category_id"] == 3)
    source.write_text(json.dumps(content))
    held = DataSource(source, share=HELD_OUT)

    data = read_validation_set(held, forms.NAMES)

    expected = {image.path for image in read_source(held).images}
    rest = replace(held, share=replace(HELD_OUT, held_out=False))
    others = {image.path for image in read_source(rest).images}
    assert set(data.coco.images.values()) == expected
    assert expected | others == {tmp_path / file for file in forms.IMAGES}
    truth = data.coco.truth.dataset["annotations"]
    assert {box["image_id"] for box in truth} <= set(data.coco.images)
    boxes = [box for path in expected for box in forms.IMAGES[path.name]]
    assert sorted(box["iscrowd"] for box in truth) == sorted(box.name == "dog" for box in boxes)
