"""Data that could be misread without a word are read right, or refused with the cure."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

from model_export.__main__ import main
from model_export.data.checked_images import check_images
from model_export.data.forms.coco import read_coco
from model_export.data.image_files import header_size, image_size
from model_export.data.reading import read, read_source, read_splits
from model_export.data.sources import DataSource
from model_export.errors import ModelExportError
from support.data_sets import annotation, coco_json, voc_folder
from support.pictures import encode, photo_like

Boxes = Sequence[tuple[float, ...]]


def picture(path: Path, seed: int = 0) -> Path:
    """Write a picture of 60 x 40 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(photo_like(60, 40, seed=seed)))
    return path


def yolo_set(
    root: Path, line: str, description: str = "names: [cat, dog]\ntrain: images\n"
) -> Path:
    picture(root / "images" / "a.png")
    (root / "labels").mkdir()
    (root / "labels" / "a.txt").write_text(line)
    (root / "data.yaml").write_text(description)
    return root / "data.yaml"


def csv_set(root: Path, text: str, images: int = 2) -> Path:
    for number in range(images):
        picture(root / f"{number}.png", number)
    (root / "boxes.csv").write_text(text)
    return root / "boxes.csv"


def boxes_of(source: Path, split: str = "train") -> Mapping[str, Boxes]:
    reading = read(DataSource(source, split=split))
    return {image.path.name: list(image.corners) for image in reading.images}


def refusal(source: Path) -> str:
    with pytest.raises(ModelExportError) as caught:
        check_images(read_source(DataSource(source)))
    return str(caught.value)


BOX = "0 0.5 0.5 0.5 0.5"
POSE = "names: [cat, dog]\ntrain: images\nkpt_shape: [{}]\n"


@pytest.mark.parametrize(
    ("shape", "keypoints"),
    [
        ("4, 3", "0.4 0.4 2 0.5 0.5 1 0.6 0.6 2 0 0 0"),
        ("5, 2", "0.4 0.4 " * 5),
        ("1, 2", "0.1 0.1"),
    ],
)
def test_keypoints_behind_a_box_are_no_polygon(shape: str, keypoints: str, tmp_path: Path) -> None:
    source = yolo_set(tmp_path, f"{BOX} {keypoints}\n1 0.5 0.5 1 1\n", POSE.format(shape))
    assert boxes_of(source) == {"a.png": [(15, 10, 45, 30), (0, 0, 60, 40)]}


@pytest.mark.parametrize(
    ("description", "line", "complaint"),
    [
        (POSE.format("4, 3"), f"{BOX} 0.1 0.1 2 0.2 0.2 2", "12 of keypoints; this one has 10"),
        (POSE.format("seventeen"), BOX, "`kpt_shape` is no list of two numbers"),
        (
            "names: [cat, dog]\ntrain: images\n",
            f"{BOX} 0.4 0.4 2 0.5 0.5 2",
            "2 is no corner of a polygon; if the line has a box and keypoints, say so in data.yaml",
        ),
        (
            "names: [cat, cat]\ntrain: images\n",
            BOX,
            "two classes are called 'cat'; give each a name",
        ),
    ],
)
def test_labels_that_could_mean_two_things_are_refused(
    description: str, line: str, complaint: str, tmp_path: Path
) -> None:
    assert complaint in refusal(yolo_set(tmp_path, line, description))


def test_yolo_images_that_are_not_there_are_told_before_their_labels(tmp_path: Path) -> None:
    source = yolo_set(tmp_path, BOX, "names: [cat]\ntrain: train.txt\n")
    (tmp_path / "train.txt").write_text("images/gone.png\nimages/too.png\n")
    assert "none of the 2 images of train is there; the first would be" in refusal(source)


def test_roboflows_form_for_darknet_names_its_classes_in_the_folder_of_a_split(
    tmp_path: Path,
) -> None:
    for split in ("train", "valid"):
        picture(tmp_path / split / f"{split}.png")
        (tmp_path / split / f"{split}.txt").write_text(BOX)
        (tmp_path / split / "_darknet.labels").write_text("cat\ndog\n")
    assert boxes_of(tmp_path) == {"train.png": [(15, 10, 45, 30)]}
    assert list(boxes_of(tmp_path, "val")) == ["valid.png"]


def test_a_description_of_another_program_does_not_hide_the_form(tmp_path: Path) -> None:
    voc_folder(tmp_path, {"a": [("cat", (1, 1, 9, 9))]})
    for name in ("ImageSets/Main/train.txt", "ImageSets/Main", "ImageSets"):
        path = tmp_path / name
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / "job.yaml").write_text("Bucket: !Ref Images\n")
    assert boxes_of(tmp_path) == {"a.jpg": [(1, 1, 9, 9)]}


def coco_in_folders(root: Path, names: Sequence[str]) -> Path:
    boxes = [annotation(10 + at, 4, at, 1, 5, 5) for at in range(len(names))]
    path = coco_json(root, boxes, count=len(names))
    content = json.loads(path.read_text())
    for image, name in zip(content["images"], names, strict=True):
        image["file_name"] = name
    path.write_text(json.dumps(content))
    return path


def test_another_picture_of_the_same_name_does_not_take_the_place_of_a_missing_one(
    tmp_path: Path,
) -> None:
    path = coco_in_folders(tmp_path, ["a/1.png", "b/1.png"])
    picture(tmp_path / "a" / "1.png")
    picture(tmp_path / "1.png", seed=7)
    told = refusal(path)
    assert f"b/1.png is missing, and {tmp_path / '1.png'} may be another picture" in told
    assert "because a/1.png lies in the folder of its name" in told


def test_lists_and_csv_files_find_no_other_picture_either(tmp_path: Path) -> None:
    picture(tmp_path / "s1" / "x.png")
    picture(tmp_path / "x.png", seed=7)
    rows = "filename,class,xmin,ymin,xmax,ymax\ns1/x.png,cat,1,1,9,9\ns2/x.png,cat,2,2,9,9\n"
    (tmp_path / "boxes.csv").write_text(rows)
    assert "s2/x.png is missing" in refusal(tmp_path / "boxes.csv")
    (tmp_path / "list.txt").write_text("s1/x.png\ns2/x.png\n")
    (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: list.txt\n")
    assert "s2/x.png is missing" in refusal(tmp_path / "data.yaml")


def test_folders_of_another_machine_may_end_at_different_depths(tmp_path: Path) -> None:
    names = ["C:\\data\\train\\p.png", "C:\\data\\q.png"]
    path = coco_in_folders(tmp_path, names)
    picture(tmp_path / "train" / "p.png")
    picture(tmp_path / "q.png")
    assert set(boxes_of(path)) == {"p.png", "q.png"}


def test_convert_writes_every_split_that_any_of_several_data_sets_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, seed in (("train", 1), ("valid", 2)):
        folder = tmp_path / "a" / split
        folder.mkdir(parents=True)
        coco_json(folder, [annotation(10, 4, 0, 0, 5, 5)], count=1)
        (folder / "0.png").rename(folder / f"{split}{seed}.png")
        path = folder / "annotations.json"
        path.write_text(path.read_text().replace("0.png", f"{split}{seed}.png"))
    whole = tmp_path / "b"
    whole.mkdir()
    coco_json(whole, [annotation(10, 9, 0, 0, 7, 7)], count=1)
    source = DataSource(tmp_path / "a", more=(whole,))
    splits = {split: len(each.images) for split, each in read_splits(source).items()}
    assert splits == {"train": 2, "val": 1}
    both = ["--data", str(whole), str(tmp_path / "a")]
    assert main(["convert", *both, "--to", "coco", "--output", str(tmp_path / "out")]) == 0
    written = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert written == ["train.json", "val.json"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"height": 60, "width": 40}, "is 60 x 40 pixels the right way up, and its annotations"),
        ({}, "has a box that is not four numbers"),
    ],
)
def test_convert_refuses_what_training_would(
    change: Mapping[str, int], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    width = 5 if change else float("nan")
    path = coco_json(tmp_path, [annotation(10, 4, 30, 0, width, 5)], count=1)
    content = json.loads(path.read_text())
    content["images"][0] |= change
    path.write_text(json.dumps(content))
    where = ["--to", "yolo", "--output", str(tmp_path / "out")]
    assert main(["convert", "--data", str(path), *where]) == 1
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (
            "image_id,filename,class,xmin,ymin,xmax,ymax\n1,0.png,cat,1,2,9,8\n",
            "the column filename is used, and image_id is not",
        ),
        (
            "filename,label,xmin,ymin,xmax,ymax,class\n0.png,cat,1,2,9,8,3\n",
            "the column label is used, and class is not",
        ),
        (
            "filename,class,label,xmin,ymin,xmax,ymax\n0.png,0,cat,1,2,9,8\n",
            "the column label is used, and class is not",
        ),
    ],
)
def test_of_two_columns_with_one_meaning_the_plainer_is_read(
    text: str, note: str, tmp_path: Path
) -> None:
    reading = read(DataSource(csv_set(tmp_path, text)))
    assert [(image.path.name, image.corners, image.names) for image in reading.images] == [
        ("0.png", [(1, 2, 9, 8)], ["cat"])
    ]
    assert any(note in each for each in reading.notes)


def test_sizes_of_boxes_are_not_taken_for_the_images(tmp_path: Path) -> None:
    rows = "filename,class,xmin,ymin,xmax,ymax,width,height\n"
    rows += "0.png,cat,1,2,9,8,8,6\n0.png,dog,3.4,2,50,30,46.6,29\n1.png,,,,,,,\n"
    source = csv_set(tmp_path, rows)
    assert boxes_of(source) == {"0.png": [(1, 2, 9, 8), (3.4, 2, 50, 30)], "1.png": []}
    notes = read(DataSource(source)).notes
    assert "boxes.csv: the column width has the boxes' sizes, not the images'" in notes
    (tmp_path / "boxes.csv").write_text(rows.replace("8,8,6", "8,80,60"))
    assert "one image is 80 x 60 in line 2, and 46 x 29 in line 3" in refusal(source)


@pytest.mark.parametrize("folder", ["labels", "images"])
def test_labels_with_a_suffix_in_capitals_are_read(folder: str, tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "classes.txt").write_text("cat\n")
    (tmp_path / folder / "a.TXT").write_text(BOX)
    (tmp_path / folder / "b.TXT").write_text(BOX)
    assert boxes_of(tmp_path) == {"a.png": [(15, 10, 45, 30)]}
    notes = " ".join(read(DataSource(tmp_path)).notes)
    assert "1 label files have no image: b.TXT" in notes


def test_a_titled_column_of_splits_divides_the_rows(tmp_path: Path) -> None:
    rows = "set,path,label,x_min,y_min,x_max,y_max\n"
    rows += "TRAIN,0.png,cat,0.1,0.1,0.5,0.5\nVALIDATION,1.png,cat,0.2,0.2,0.5,1.0005\n"
    source = csv_set(tmp_path, rows, images=3)
    assert boxes_of(source) == {"0.png": [(6, 4, 30, 20)]}
    assert list(boxes_of(source, "val")) == ["1.png"]
    told = " ".join(read(DataSource(source)).notes)
    assert "the column set says which split a row is of" in told
    assert "1 images that boxes.csv does not list are not used: 2.png" in told


def test_a_column_of_other_words_than_splits_divides_nothing(tmp_path: Path) -> None:
    rows = "filename,class,xmin,ymin,xmax,ymax,subset\n0.png,cat,1,2,9,8,north\n"
    reading = read(DataSource(csv_set(tmp_path, rows)))
    assert len(reading.images) == 1
    assert "boxes.csv: the column subset has other values than splits" in reading.notes


def test_a_row_without_a_split_among_others_is_named(tmp_path: Path) -> None:
    rows = "filename,class,xmin,ymin,xmax,ymax,split\n0.png,cat,1,2,9,8,test\n1.png,cat,1,2,9,8\n"
    assert "line 3: the set is ''; it should be TRAIN" in refusal(csv_set(tmp_path, rows))


def test_groups_of_open_images_are_crowds(tmp_path: Path) -> None:
    rows = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n"
    rows += "0,/m/01,0.1,0.5,0.1,0.5,0\n0,/m/01,0.2,0.9,0.2,0.9,1\n"
    reading = read(DataSource(csv_set(tmp_path, rows)))
    assert boxes_of(tmp_path / "boxes.csv") == {"0.png": [(6, 4, 30, 20)]}
    assert reading.crowd == 1


def test_retinanets_list_of_classes_is_no_second_data_set(tmp_path: Path) -> None:
    csv_set(tmp_path, "0.png,1,2,9,8,cat\n")
    (tmp_path / "_classes.csv").write_text("cat,0\n")
    (tmp_path / "._boxes.csv").write_text("what macOS keeps beside a file")
    assert boxes_of(tmp_path) == {"0.png": [(1, 2, 9, 8)]}


@pytest.mark.parametrize("scale", [1.0, 1.0005])
def test_shares_in_the_place_of_pixels_are_refused(scale: float, tmp_path: Path) -> None:
    path = coco_json(tmp_path, [annotation(10, 4, 0.25, 0.25, 0.5 * scale, 0.75 * scale)])
    assert "all coordinates are below 1.5, so that they seem to be shares" in refusal(path)
    voc = voc_folder(tmp_path / "voc", {"a": [("cat", (0.1, 0.1, 0.5, scale))]})
    assert "multiply x and widths by the width" in refusal(voc)


@pytest.mark.parametrize(("written", "crowds"), [("0", 0), ("False", 0), ("1", 1), (True, 1)])
def test_crowds_may_be_written_as_text(written: object, crowds: int, tmp_path: Path) -> None:
    path = coco_json(tmp_path, [annotation(10, 4, 0, 0, 5, 5) | {"iscrowd": written}])
    assert sum(each.is_crowd for each in read_coco(path).annotations) == crowds


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"categories": [{"id": 4, "name": ["cat"]}]}, 'has the name ["cat"], which is no text'),
        ({"iscrowd": "many"}, 'has the iscrowd "many", which is neither 0 nor 1'),
        ({"file_name": "a\0b.png"}, "cannot read the image"),
        ({"file_name": "x" * 300}, "File name too long"),
    ],
)
def test_odd_values_of_coco_are_named(
    changes: Mapping[str, object], complaint: str, tmp_path: Path
) -> None:
    path = coco_json(tmp_path, [annotation(10, 4, 0, 0, 5, 5)])
    content = json.loads(path.read_text())
    for name, value in changes.items():
        if name == "categories":
            content["categories"] = value
        else:
            content["images" if name == "file_name" else "annotations"][0][name] = value
    path.write_text(json.dumps(content))
    assert complaint in refusal(path)


@pytest.mark.parametrize("group", [["animal"], {"of": "animals"}])
def test_a_supercategory_of_any_kind_groups_nothing(group: object, tmp_path: Path) -> None:
    path = coco_json(tmp_path, [annotation(10, 4, 0, 0, 5, 5)])
    content = json.loads(path.read_text())
    content["categories"] = [{"id": 4, "name": "cat", "supercategory": group}]
    path.write_text(json.dumps(content))
    assert read_coco(path).categories == {4: "cat"}


def test_roboflows_project_may_be_called_like_a_class(tmp_path: Path) -> None:
    path = coco_json(tmp_path, [annotation(10, 1, 0, 0, 5, 5)])
    content = json.loads(path.read_text())
    content["categories"] = [
        {"id": 0, "name": "cat", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "cat"},
        {"id": 2, "name": "dog", "supercategory": "cat"},
    ]
    path.write_text(json.dumps(content))
    assert read_coco(path).categories == {1: "cat", 2: "dog"}
    assert "left out the category 0" in read_coco(path).notes[0]


@pytest.mark.parametrize(("encoding", "name"), [("utf-16", "data.json"), ("utf-8", "._data.json")])
def test_a_folder_shows_its_coco_file(encoding: str, name: str, tmp_path: Path) -> None:
    text = coco_json(tmp_path, [annotation(10, 4, 0, 0, 5, 5)]).read_text()
    if name.startswith("."):
        (tmp_path / name).write_text(text)
    else:
        (tmp_path / "annotations.json").unlink()
        (tmp_path / name).write_text(text, encoding=encoding)
    assert boxes_of(tmp_path)["0.png"] == [(0, 0, 5, 5)]


@pytest.mark.parametrize(
    ("root", "tool"), [("annotations", "CVAT's own form"), ("doc", "another form")]
)
def test_xml_of_another_form_is_no_background(root: str, tool: str, tmp_path: Path) -> None:
    voc = voc_folder(tmp_path, {"a": [("cat", (1, 1, 9, 9))], "b": []})
    (voc / "Annotations" / "b.xml").write_text(f"<{root}><image/></{root}>")
    assert f"b.xml is no VOC annotation but {tool}" in refusal(voc)


def test_namespaces_of_xml_change_nothing(tmp_path: Path) -> None:
    voc = voc_folder(tmp_path, {"a": [("cat", (1, 1, 9, 9))]})
    path = voc / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace("<annotation>", '<annotation xmlns="urn:voc">'))
    assert boxes_of(voc) == {"a.jpg": [(1, 1, 9, 9)]}


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", [1, 5, 6, 7, 8])
def test_the_header_tells_the_size_upright(kind: str, orientation: int, tmp_path: Path) -> None:
    path, exif = tmp_path / "photo", Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(photo_like(60, 40)).save(path, kind, exif=exif)
    assert header_size(path) == image_size(path)
