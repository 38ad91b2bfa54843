"""Every form of data set gives the same samples; faults are named with their place and cure."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_export.__main__ import main
from model_export.data.checked_images import CheckedImages, check_images
from model_export.data.reading import read_annotations, read_source
from model_export.data.sources import FORM_NAMES, DataSource, FormName
from model_export.errors import ModelExportError
from support import data_forms as forms
from support.data_forms import FORMS, IMAGES, NAMES

FORM_OF_PREFIX = {name: form for name in FORMS for form in FORM_NAMES if name.startswith(form)}


def read(source: Path, **options: Any) -> CheckedImages:
    return check_images(read_source(DataSource(source, **options)))


def samples(data: CheckedImages) -> list[tuple[str, list[list[float]], list[str]]]:
    """Names, boxes and classes of the images, in their order."""
    return [
        (
            image.path.name,
            image.boxes_xyxy.tolist(),
            [data.class_names[class_id] for class_id in image.class_ids],
        )
        for image in data.images
    ]


EXPECTED = [
    (file, [[float(each) for each in box[1:]] for box in boxes], [box.name for box in boxes])
    for file, boxes in sorted(IMAGES.items())
]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_samples(name: str, tmp_path: Path) -> None:
    data = read(FORMS[name](tmp_path))

    assert data.class_names == NAMES
    assert samples(data) == EXPECTED
    assert data.dropped == ()
    assert data.clipped == ()
    titles = {"coco": "COCO", "yolo": "YOLO", "voc": "Pascal VOC", "csv": "CSV"}
    assert f"read as {titles[FORM_OF_PREFIX[name]]}, " in data.report()[0]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_decodes_the_same_pixels(name: str, tmp_path: Path) -> None:
    ours = read(FORMS[name](tmp_path / "ours")).pictures(None)
    theirs = read(forms.coco_beside(tmp_path / "theirs")).pictures(None)
    for number in range(len(IMAGES)):
        np.testing.assert_array_equal(ours[number].image, theirs[number].image)
        np.testing.assert_array_equal(ours[number].class_ids, theirs[number].class_ids)


@pytest.mark.parametrize("form", FORM_NAMES)
def test_converted_data_are_the_same(
    form: FormName, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = forms.coco_beside(tmp_path / "source"), tmp_path / form
    content = json.loads(source.read_text())
    # Parts of pixels, a class without boxes, and classes in an order of their own.
    content["annotations"][0]["bbox"] = [10.25, 20.1, 33.3, 1 / 3]
    content["categories"] = [{"id": 0, "name": "zebra"}, *content["categories"]]
    source.write_text(json.dumps(content))

    assert main(["convert", "--data", str(source), "--to", form, "--output", str(output)]) == 0

    (written,) = capsys.readouterr().out.splitlines()
    before, after = read(source), read(Path(written))
    assert after.class_names == before.class_names == ("zebra", *NAMES)
    for old, new in zip(before.images, after.images, strict=True):
        assert old.path.name == new.path.name
        assert old.path.read_bytes() == new.path.read_bytes()
        np.testing.assert_allclose(new.boxes_xyxy, old.boxes_xyxy, atol=1e-5)
        np.testing.assert_array_equal(new.class_ids, old.class_ids)


def test_all_splits_are_converted_and_names_stay_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = forms.voc_side_by_side(tmp_path / "voc")
    forms.photo(root / "valid/a.jpg")
    forms.write(root / "valid/a.xml", forms.voc_text("a.jpg", [forms.Box("ant", 1, 2, 30, 40)]))
    output = tmp_path / "yolo"

    assert main(["convert", "--data", str(root), "--to", "yolo", "--output", str(output)]) == 0

    assert "train: 4 images" in capsys.readouterr().err
    val = read(output / "data.yaml", split="val")
    assert val.class_names == ("ant", *NAMES)
    assert samples(val) == [("a-2.jpg", [[1, 2, 30, 40]], ["ant"])]
    assert main(["convert", "--data", str(root), "--to", "yolo", "--output", str(output)]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_a_wrong_guess_of_the_form_can_be_overruled(tmp_path: Path) -> None:
    root = forms.yolo_of_roboflow(tmp_path)
    box = [forms.Box("ant", 1, 2, 30, 40)]
    forms.write(root / "train/images/a.xml", forms.voc_text("a.jpg", box))

    assert "it also has XML files: --form voc reads that" in read(root).report()[0]
    assert read(root, form="voc").class_names == ("ant",)


def test_several_data_sets_are_one(tmp_path: Path) -> None:
    first = forms.voc_with_lists(tmp_path / "VOC2007")
    second = forms.yolo_with_yaml(tmp_path / "yolo")
    for path in second.parent.rglob("*.*"):
        if path.suffix in (".jpg", ".txt"):
            path.rename(path.with_name(f"z{path.name}"))

    data = read(first, more=(second,))

    assert data.class_names == NAMES
    expected = [*EXPECTED, *((f"z{name}", boxes, names) for name, boxes, names in EXPECTED)]
    assert samples(data) == expected
    assert len({image.image_id for image in data.images}) == 8
    with pytest.raises(ModelExportError, match="is in two of the data sets"):
        read(first, more=(first,))


def test_the_order_of_classes_can_be_chosen(tmp_path: Path) -> None:
    root = forms.voc_side_by_side(tmp_path)
    assert read(root, class_names=("dog", "cat", "bird")).class_names == ("dog", "cat", "bird")
    assert samples(read(root, class_names=("dog", "cat", "bird"))) == EXPECTED


def test_data_without_splits_are_no_validation_data_too(tmp_path: Path) -> None:
    for name in ("coco_of_cvat", "voc_in_two_folders", "yolo_of_segments", "csv_without_header"):
        source = FORMS[name](tmp_path / name)
        root = source if source.is_dir() else source.parent
        with pytest.raises(ModelExportError, match=r"no split val.*--val 0\.2"):
            read(root, split="val")


def test_the_validation_split_has_many_names(tmp_path: Path) -> None:
    root = forms.voc_side_by_side(tmp_path)
    (root / "train").rename(root / "Valid")
    assert samples(read(root, split="val")) == EXPECTED


# Faults


def one_more_line(root: Path, line: str) -> Path:
    source = forms.yolo_with_yaml(root)
    label = root / "labels/train/a.txt"
    label.write_text(f"{label.read_text()}{line}\n")
    return source


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("7 0.5 0.5 0.1 0.1", r"a\.txt, line 3: the class 7 has no name.*3 names is for 2"),
        ("cat 0.5 0.5 0.1 0.1", r"a\.txt, line 3: 'cat' is no number"),
        ("0 0.5 0.5 0.1", r"a\.txt, line 3: .*this one has 3 numbers"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2 0.3", r"a\.txt, line 3: .*this one has 7 numbers"),
        ("0 80 60 16 12", r"a\.txt, line 3: 80 is no share of the image; divide"),
        ("0 nan 0.5 0.1 0.1", r"a\.txt, line 3: 'nan' is no number"),
        ("-1 0.5 0.5 0.1 0.1", r"a\.txt, line 3: the class -1 is no whole number"),
    ],
)
def test_a_wrong_line_of_yolo_is_named(line: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ModelExportError, match=complaint):
        read(one_more_line(tmp_path, line))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("train: images/train\n", "has no `names`"),
        ("train: images/train\nnames: {1: a, 2: b}\n", "no class 0; number the 2 classes"),
        (
            "train: images/train\nnc: 4\nnames: [a, b]\n",
            "2 classes have names, and there should be 4",
        ),
        ("train: elsewhere\nnames: [a]\n", r"`train` is elsewhere.* correct it, or `path`"),
        ("train: [\n", r"data\.yaml, line \d: no valid YAML"),
        ("train: {a: b}\nnames: [a]\n", "`train` is neither a path"),
    ],
)
def test_a_wrong_description_of_yolo_is_explained(
    text: str, complaint: str, tmp_path: Path
) -> None:
    source = forms.yolo_with_yaml(tmp_path)
    source.write_text(text)
    with pytest.raises(ModelExportError, match=complaint):
        read(source)


def test_names_in_yaml_are_text(tmp_path: Path) -> None:
    source = forms.yolo_with_yaml(tmp_path)
    source.write_text("train: images/train\nnames: [yes, 1, null]\n")
    assert read(source).class_names == ("yes", "1", "null")


def test_labels_that_belong_to_no_image_are_told(tmp_path: Path) -> None:
    source = forms.yolo_with_yaml(tmp_path)
    forms.write(tmp_path / "labels/train/gone.txt", "0 0.5 0.5 0.1 0.1\n")
    report = "\n".join(read(source).report())
    assert "1 label files have no image: gone.txt" in report
    assert "1 images without labels are background: d.jpg" in report


def test_images_without_any_labels_are_refused(tmp_path: Path) -> None:
    source = forms.yolo_with_yaml(tmp_path)
    (tmp_path / "labels").rename(tmp_path / "label")
    with pytest.raises(ModelExportError, match=r"a\.jpg should have .*labels/train/a\.txt"):
        read(source)
    root = forms.voc_side_by_side(tmp_path / "voc")
    for path in root.rglob("*.xml"):
        path.unlink()
    with pytest.raises(ModelExportError, match=r"a\.jpg should have a\.xml"):
        read(root, form="voc")


def test_two_images_of_one_stem_are_named(tmp_path: Path) -> None:
    source = forms.yolo_with_yaml(tmp_path / "yolo")
    forms.photo(tmp_path / "yolo/images/train/a.jpeg")
    with pytest.raises(ModelExportError, match=r"a\.jpeg and a\.jpg would share one label file"):
        read(source)

    listed = forms.voc_with_lists(tmp_path / "listed")
    forms.photo(listed / "JPEGImages/a.jpeg")
    (listed / "ImageSets/Main/train.txt").write_text("a\n")
    with pytest.raises(ModelExportError, match=r"two images for the name a: a\.jpeg and a\.jpg"):
        read(listed)

    flat = forms.voc_side_by_side(tmp_path / "flat")
    forms.photo(flat / "train/a.jpeg")
    # The XML says which one it is about.
    assert "1 images without XML" not in "\n".join(read(flat).report())
    assert "2 images without XML are background: a.jpeg, d.jpg" in read(flat).report()
    (flat / "train/a.xml").write_text(forms.voc_text("old.jpg", IMAGES["a.jpg"]))
    with pytest.raises(ModelExportError, match=r"a\.xml may belong to .*rename one image"):
        read(flat)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("a.jpg,160,120,cat,1,2,x,4", r"line 8: x2 is 'x', which is no number"),
        ("a.jpg,160,120,,1,2,3,4", r"line 8: the box has no class"),
        (",160,120,cat,1,2,3,4", r"line 8: the row names no image"),
        ("a.jpg,160,120,cat,1,2", r"line 8: x2 is '', which is no number"),
    ],
)
def test_a_wrong_row_of_csv_is_named(row: str, complaint: str, tmp_path: Path) -> None:
    source = forms.csv_of_tensorflow(tmp_path)
    source.write_text(f"{source.read_text()}{row}\n")
    with pytest.raises(ModelExportError, match=complaint):
        read(source)


def test_unknown_columns_of_csv_are_named(tmp_path: Path) -> None:
    source = forms.write(tmp_path / "a.csv", "file,what,xmin,ymin,xmax,ymax\n")
    with pytest.raises(ModelExportError, match=r"a\.csv, line 1: no column for name"):
        read(source)


def test_images_in_another_folder_are_asked_for(tmp_path: Path) -> None:
    source = forms.csv_of_tensorflow(tmp_path / "here")
    (tmp_path / "here/images").rename(tmp_path / "there")
    with pytest.raises(ModelExportError, match=r"4 of 4 images are unfit.*name it with --images"):
        read(source)
    assert samples(read(source, images=tmp_path / "there")) == EXPECTED


def test_text_in_another_encoding_is_named(tmp_path: Path) -> None:
    source = forms.write(tmp_path / "a.csv", "filename,class\na.jpg,Bär\n", "cp1252")
    with pytest.raises(ModelExportError, match=r"a\.csv, line 2: the text is not UTF-8; save"):
        read(source)


def test_xml_is_read_in_the_encoding_that_it_declares_or_refused(tmp_path: Path) -> None:
    root = forms.voc_side_by_side(tmp_path)
    text = forms.voc_text("a.jpg", [forms.Box("Bär", 1, 2, 30, 40)])
    xml = root / "train/a.xml"
    forms.write(xml, f'<?xml version="1.0" encoding="windows-1252"?>{text}', "cp1252")
    assert "Bär" in read(root).class_names
    forms.write(xml, text, "cp1252")
    with pytest.raises(ModelExportError, match=r"a\.xml is no VOC annotation: .*save it as UTF-8"):
        read(root)
    forms.write(xml, f'<?xml version="1.0" encoding="klingon"?>{text}')
    with pytest.raises(ModelExportError, match=r"a\.xml .*unknown encoding: klingon"):
        read(root)


@pytest.mark.parametrize(
    "size", ["<width>inf</width><height>9</height>", "<width>w</width><height>9</height>"]
)
def test_a_size_that_is_no_number_is_named(size: str, tmp_path: Path) -> None:
    root = forms.voc_side_by_side(tmp_path)
    forms.write(root / "train/a.xml", f"<annotation><size>{size}</size></annotation>")
    with pytest.raises(ModelExportError, match=r"a\.xml is no VOC annotation"):
        read(root)


def test_an_image_that_is_listed_twice_is_told(tmp_path: Path) -> None:
    source = forms.coco_beside(tmp_path)
    content = forms.coco_content()
    content["images"].append({"id": 99, "file_name": "a.jpg"})
    source.write_text(json.dumps(content))
    assert f"image files that are listed more than once: {tmp_path / 'a.jpg'}" in read(source).notes


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"images": [{"id": 1}]}, "image 1 has no file_name"),
        ({"images": [{"file_name": "a.jpg"}]}, "image 1 has no id"),
        ({"images": [7]}, "image 1 is not a JSON object"),
        ({"images": {"a": 1}}, "it has no list of images"),
        ({"categories": [{"id": 1}]}, "category 1 has no name"),
        ({"annotations": [{"image_id": 9, "category_id": 1}]}, "image_id 9, which is not listed"),
        ({"annotations": [{"image_id": "01", "category_id": 1}]}, 'image_id "01", which is not'),
        ({"annotations": [{"image_id": 1, "category_id": 1, "bbox": "1234"}]}, "not four numbers"),
        (
            {"annotations": [{"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]}]},
            "annotation 1 has the category_id 7, which is not listed; add it to the categories",
        ),
        (
            {"annotations": [{"image_id": 1, "category_id": 1, "bbox": {"x": 1}}]},
            r'annotation 1 has a bbox that is not four numbers: \{"x": 1\}',
        ),
        (
            {"annotations": [{"image_id": [1], "category_id": 1, "bbox": [1, 2, 3, 4]}]},
            r"annotation 1 has the image_id \[1\], which is no id",
        ),
    ],
)
def test_a_wrong_entry_of_coco_is_named(
    change: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    source = forms.coco_beside(tmp_path)
    source.write_text(json.dumps(forms.coco_content() | change))
    with pytest.raises(ModelExportError, match=complaint):
        read(source)


def test_a_used_group_and_a_lone_class_stay_classes(tmp_path: Path) -> None:
    source = forms.coco_beside(tmp_path)
    content = forms.coco_content()
    for each in content["categories"]:
        each["supercategory"] = "cat"
    source.write_text(json.dumps(content))
    assert read(source).class_names == NAMES

    lone = {"categories": [{"id": 0, "name": "cat", "supercategory": "cat"}], "annotations": []}
    source.write_text(json.dumps(content | lone))
    assert read_annotations(source).class_names == ("cat",)


def test_a_broken_file_of_roboflow_is_named(tmp_path: Path) -> None:
    root = forms.coco_of_roboflow(tmp_path)
    (root / "train/_annotations.coco.json").write_text('{"images": [')
    with pytest.raises(ModelExportError, match=r"_annotations\.coco\.json .*no JSON at line 1"):
        read(root)


def test_names_that_differ_in_spelling_are_pointed_out(tmp_path: Path) -> None:
    root = forms.voc_side_by_side(tmp_path)
    with pytest.raises(ModelExportError, match="only the spelling differs: 'cat' is like 'Cat'"):
        read_annotations(root, class_names=("bird", "Cat", "dog"))


def test_a_folder_of_nothing_known_is_told_what_there_could_be(tmp_path: Path) -> None:
    with pytest.raises(ModelExportError, match=r"no \.yaml with `names`, no \.json with"):
        read(tmp_path)
    forms.voc_with_lists(tmp_path / "VOCdevkit/VOC2012")
    with pytest.raises(ModelExportError, match="give each of them: VOC2012"):
        read(tmp_path / "VOCdevkit")
