"""Annotations as they lie on disk become boxes, and faults in them become clear errors."""

import json
from pathlib import Path

import numpy as np
import pytest

from model_export.data.checked_images import check_images
from model_export.data.forms.coco import read_coco
from model_export.data.forms.voc import read_voc
from model_export.data.reading import read_annotations
from model_export.errors import ModelExportError
from model_export.measure.coco import read_coco_set
from support.data_sets import annotation, coco_json, voc_folder, voc_xml
from support.pictures import encode, photo_like

# BCCD: the numbers of the data set's own description.


@pytest.mark.parametrize(
    ("split", "images", "counts", "zero_size"),
    [
        ("train", 205, {"RBC": 2381, "WBC": 214, "Platelets": 209}, "BloodImage_00343.jpg"),
        ("val", 87, {"RBC": 967, "WBC": 87, "Platelets": 83}, "BloodImage_00338.jpg"),
        ("test", 72, {"RBC": 805, "WBC": 71, "Platelets": 69}, None),
    ],
)
def test_both_forms_of_bccd_are_the_same_data(
    shared_data: Path, split: str, images: int, counts: dict[str, int], zero_size: str | None
) -> None:
    root = shared_data / "bccd"
    coco = check_images(read_annotations(root / f"{split}.json", root / "BCCD" / "JPEGImages"))
    names = coco.class_names
    voc = check_images(read_annotations(root / "BCCD", split=split, class_names=names))

    assert names == ("RBC", "WBC", "Platelets")
    assert len(coco.images) == len(voc.images) == images
    for data in (coco, voc):
        ids = np.concatenate([image.class_ids for image in data.images])
        assert dict(zip(names, np.bincount(ids).tolist(), strict=True)) == counts
    assert coco.dropped == ()
    assert [box.path.name for box in voc.dropped] == ([zero_size] if zero_size else [])
    by_name = {image.path.name: image for image in voc.images}
    for image in coco.images:
        np.testing.assert_array_equal(by_name[image.path.name].boxes_xyxy, image.boxes_xyxy)


def test_crowds_of_coco_are_counted_and_left_out(shared_data: Path) -> None:
    folder = shared_data / "coco-subset"
    data = check_images(read_coco(folder / "instances_all.json", folder / "images").targets())
    assert (len(data.images), len(data.class_names), data.crowd) == (194, 80, 16)
    assert sum(len(image.boxes_xyxy) for image in data.images) == 1585 - 16


# COCO


def test_coco_classes_are_numbered_in_the_order_of_their_ids(tmp_path: Path) -> None:
    path = coco_json(
        tmp_path, [annotation(10, 9, 1, 2, 3, 4), {**annotation(11, 4, 0, 0, 9, 9), "iscrowd": 1}]
    )

    data = read_coco(path, tmp_path).targets()

    assert data.class_names == ("cat", "dog")
    assert [image.image_id for image in data.images] == [10, 11]
    assert data.images[0].class_ids.tolist() == [1]
    np.testing.assert_array_equal(data.images[0].boxes_xyxy, [[1, 2, 4, 6]])
    assert data.images[1].boxes_xyxy.shape == (0, 4)
    assert data.crowd == 1


def test_coco_classes_can_be_numbered_as_another_set_does(tmp_path: Path) -> None:
    path = coco_json(tmp_path, [annotation(10, 9, 1, 2, 3, 4)])
    assert read_coco(path, tmp_path).targets(["dog"]).images[0].class_ids.tolist() == [0]
    with pytest.raises(ModelExportError, match="classes beyond the model's: dog"):
        read_coco(path, tmp_path).targets(["cat"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("not json", "no COCO annotation file"),
        ("[]", "no COCO annotation file"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "no images"),
    ],
)
def test_a_file_that_is_no_coco_set_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ModelExportError, match=rf"a\.json .*{complaint}"):
        read_coco(path, tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        annotation(99, 4, 0, 0, 5, 5),
        annotation(10, 99, 0, 0, 5, 5),
        {"image_id": 10, "category_id": 4, "bbox": [1, 2, 3]},
        {"image_id": 10, "category_id": 4, "bbox": ["one", 2, 3, 4]},
    ],
)
def test_coco_annotations_that_refer_to_nothing_are_refused(
    tmp_path: Path, wrong: dict[str, object]
) -> None:
    with pytest.raises(ModelExportError, match=r"annotations\.json"):
        read_coco(coco_json(tmp_path, [wrong]), tmp_path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"images": []}, "annotation 1 has the image_id 10, which is not listed"),
        ({"images": [], "annotations": []}, "lists no images"),
        ({"categories": []}, "annotation 1 has the category_id 4, which is not listed"),
        ({"categories": [], "annotations": []}, "lists no categories"),
        ({"annotations": [{"image_id": 10, "category_id": 4}]}, "annotation 1 has no bbox"),
        (
            {"annotations": [{"image_id": 10, "category_id": 4, "bbox": [1, 2, 3]}]},
            "annotation 1 has a bbox that is not four numbers",
        ),
        (
            {"categories": [{"id": 4, "name": "cat"}, {"id": 9, "name": "cat"}]},
            "categories 4 and 9 are both called cat",
        ),
    ],
)
def test_training_and_measuring_refuse_the_same_files_in_the_same_words(
    tmp_path: Path, changes: dict[str, object], complaint: str
) -> None:
    path = coco_json(tmp_path, [annotation(10, 4, 0, 0, 5, 5)])
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelExportError, match=complaint) as training:
        read_annotations(path)
    with pytest.raises(ModelExportError) as measuring:
        read_coco_set(path, tmp_path)
    assert str(training.value) == str(measuring.value)


def test_two_coco_images_of_one_id_are_refused(tmp_path: Path) -> None:
    path = coco_json(tmp_path, [annotation(10, 4, 0, 0, 5, 5)])
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"images": content["images"] * 2}))
    with pytest.raises(ModelExportError, match="two images have the id 10"):
        read_coco(path, tmp_path)


# VOC


def test_voc_corners_are_taken_as_written(tmp_path: Path) -> None:
    root = voc_folder(
        tmp_path, {"b": [("dog", (1, 2.5, 30, 40)), ("cat", (0, 0, 60, 40))], "a": []}
    )

    data = read_voc(root).annotations()

    assert data.class_names == ("cat", "dog")
    assert [image.path.name for image in data.images] == ["b.jpg", "a.jpg"]
    assert data.images[0].class_ids.tolist() == [1, 0]
    np.testing.assert_array_equal(data.images[0].boxes_xyxy, [[1, 2.5, 30, 40], [0, 0, 60, 40]])


def test_voc_lists_of_one_class_are_read_too(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": [("dog", (0, 0, 9, 9))], "b": []})
    (root / "ImageSets/Main/dog_val.txt").write_text("a  1\nb -1\n\n")
    assert [image.path.stem for image in read_voc(root, "dog_val").images] == ["a", "b"]


def test_a_voc_image_may_be_named_like_a_mark(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"photo 1": [("dog", (0, 0, 9, 9))], "b": []})
    assert [image.path.stem for image in read_voc(root).images] == ["photo 1", "b"]


@pytest.mark.parametrize(
    ("xml", "complaint"),
    [
        ("<annotation>", r"a\.xml is no VOC annotation"),
        (voc_xml([("", (0, 0, 9, 9))]), r"a\.xml.*object 1 has no name"),
        (voc_xml([("dog", (0, 0, 9, 9))]).replace("xmax", "x"), r"a\.xml.*no bndbox/xmax"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', r"a\.xml.*DTD"),
    ],
)
def test_a_broken_voc_annotation_is_named(tmp_path: Path, xml: str, complaint: str) -> None:
    root = voc_folder(tmp_path, {"a": []})
    (root / "Annotations/a.xml").write_text(xml)
    with pytest.raises(ModelExportError, match=complaint):
        read_voc(root)


def test_a_voc_split_or_annotation_that_is_missing_is_named(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": [("dog", (0, 0, 9, 9))]})
    with pytest.raises(ModelExportError, match="split val"):
        read_voc(root, "val")
    (root / "Annotations/a.xml").unlink()
    with pytest.raises(ModelExportError, match=r"a\.xml"):
        read_voc(root)


# Boxes and images that are no good


def test_degenerate_boxes_are_dropped_and_reported_and_others_clipped(tmp_path: Path) -> None:
    entries = [
        annotation(10, 4, -5, -5, 20, 20),
        annotation(10, 4, 10, 10, 0, 5),
        annotation(10, 9, 10, 10, 5, -5),
        annotation(10, 9, 60, 0, 10, 10),
        annotation(11, 4, float("nan"), 0, 10, 10),
    ]
    data = check_images(read_coco(coco_json(tmp_path, entries), tmp_path).targets())

    np.testing.assert_array_equal(data.images[0].boxes_xyxy, [[0, 0, 15, 15]])
    assert data.images[0].class_ids.tolist() == [0]
    assert data.images[1].boxes_xyxy.shape == (0, 4)
    reasons = ["has no area", "has a negative width or height"]
    reasons += ["is outside of the image", "is not four numbers"]
    assert [box.reason for box in data.dropped] == reasons
    report = "\n".join(data.report())
    assert "2 images (1 without boxes), 1 boxes" in report
    assert "boxes that cannot be targets: 4" in report
    assert "0.png: dog [60.0, 0.0, 70.0, 10.0] is outside of the image" in report


def test_every_unfit_image_is_named_at_once(tmp_path: Path) -> None:
    path = coco_json(tmp_path, [], count=5)
    (tmp_path / "0.png").unlink()
    (tmp_path / "1.png").write_bytes(b"no image")
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    (tmp_path / "2.png").write_bytes(encode(noise, "JPEG")[:-300])
    (tmp_path / "3.png").write_bytes(encode(photo_like(61, 40)))
    done = []

    with pytest.raises(ModelExportError, match="4 of 5 images") as caught:
        check_images(read_coco(path, tmp_path).targets(), lambda: done.append(1))

    text = str(caught.value)
    assert "0.png: it is missing" in text
    assert "1.png: this is not an image of an accepted type" in text
    assert "2.png: the image cannot be decoded" in text
    assert "3.png is 61 x 40 pixels the right way up, and its annotations are for 60 x 40" in text
    assert "4.png" not in text
    assert len(done) == 5


def test_a_message_about_many_images_stays_readable(tmp_path: Path) -> None:
    path = coco_json(tmp_path, [], count=30)
    for image in tmp_path.glob("*.png"):
        image.unlink()
    with pytest.raises(ModelExportError, match="30 of 30") as caught:
        check_images(read_coco(path, tmp_path).targets())
    assert str(caught.value).count("is missing") == 10
    assert "and 20 more" in str(caught.value)
