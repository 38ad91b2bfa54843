"""Data whose files are elsewhere, named otherwise, or more than one: found, or refused."""

import json
from pathlib import Path

import pytest
from PIL import Image

from model_export.__main__ import main
from model_export.data.checked_images import check_images
from model_export.data.class_names import read_names
from model_export.data.forms.found_images import ImageFinder, image_files
from model_export.data.image_files import header_size, image_size
from model_export.data.reading import read, read_source, read_splits
from model_export.data.sources import DataSource
from model_export.errors import ModelExportError
from support import data_forms as forms
from support.data_sets import annotation, coco_json
from support.pictures import encode, photo_like

SPLITS = ("train", "valid", "test")
HEADER = "filename,class,xmin,ymin,xmax,ymax"


def picture(path: Path, seed: int = 0) -> Path:
    """Write a picture of 60 x 40 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(photo_like(60, 40, seed=seed)))
    return path


def xml(path: Path, name: str) -> Path:
    """Write a VOC annotation of one object of this class."""
    box = "<xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax>"
    entry = f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"
    return forms.write(path, f"<annotation>{entry}</annotation>")


def classes_of(source: Path, split: str = "train") -> dict[str, list[str]]:
    """Names of image files below the data set, and the classes of their boxes."""
    reading = read(DataSource(source, split=split))
    root = source if source.is_dir() else source.parent
    return {image.path.relative_to(root).as_posix(): list(image.names) for image in reading.images}


def refusal(*sources: Path, split: str = "train") -> str:
    first, *more = sources
    with pytest.raises(ModelExportError) as caught:
        check_images(read_source(DataSource(first, split=split, more=tuple(more))))
    return str(caught.value)


def coco(path: Path, files: list[str], box: tuple[float, ...] = (1, 2, 30, 20)) -> Path:
    content = {
        "images": [{"id": number, "file_name": file} for number, file in enumerate(files)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"image_id": number, "category_id": 1, "bbox": box} for number in range(len(files))
        ],
    }
    return forms.write(path, json.dumps(content))


# Two names for one file


@pytest.mark.parametrize("names", [("cam1/a.png", "cam2/a.png"), ("a.png", "cam2/a.png")])
def test_two_names_that_lead_to_one_file_are_refused(
    names: tuple[str, str], tmp_path: Path
) -> None:
    picture(tmp_path / "a.png")
    rows = "".join(f"{name},cat,1,1,9,9\n" for name in names)
    forms.write(tmp_path / "t.csv", f"{HEADER}\n{rows}")
    complaint = f"{names[0]} and {names[1]} would both be {tmp_path / 'a.png'}"
    assert complaint in refusal(tmp_path / "t.csv")
    assert complaint in refusal(coco(tmp_path / "t.json", list(names)))


def test_one_name_in_two_writings_is_one_file(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    rows = "C:\\data\\a.png,cat,1,1,9,9\nc:/Data/a.png,dog,1,1,9,9\n"
    forms.write(tmp_path / "t.csv", f"{HEADER}\n{rows}")
    assert classes_of(tmp_path / "t.csv") == {"a.png": ["cat", "dog"]}


def test_a_name_is_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a.png")
    finder = ImageFinder([tmp_path])
    assert finder.find("D:\\x\\A.PNG") == tmp_path / "a.png"
    monkeypatch.setattr(ImageFinder, "_find", None)
    assert finder.find("D:\\x\\A.PNG") == tmp_path / "a.png"


# Splits


def test_a_folder_with_one_csv_of_all_splits_has_them(tmp_path: Path) -> None:
    rows = [f"{name}.png,cat,1,1,9,9,{split}\n" for name, split in zip("abc", SPLITS, strict=True)]
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    forms.write(tmp_path / "labels.csv", f"{HEADER},split\n{''.join(rows)}")
    found = read_splits(DataSource(tmp_path))
    assert {split: [each.path.name for each in one.images] for split, one in found.items()} == {
        "train": ["a.png"],
        "val": ["b.png"],
        "test": ["c.png"],
    }


@pytest.mark.parametrize("folders", [("images", "annotations"), ("JPEGImages", "Annotations")])
def test_voc_in_two_folders_of_splits_has_them(folders: tuple[str, str], tmp_path: Path) -> None:
    for split in ("train", "val"):
        picture(tmp_path / folders[0] / split / "0.png")
        xml(tmp_path / folders[1] / split / "0.xml", split)
    assert classes_of(tmp_path) == {f"{folders[0]}/train/0.png": ["train"]}
    assert classes_of(tmp_path, "val") == {f"{folders[0]}/val/0.png": ["val"]}
    assert "has no split test (it has train, val)" in refusal(tmp_path, split="test")
    # One that names an image elsewhere is of no split, and the image is missing.
    lost = tmp_path / folders[1] / "train/lost.xml"
    lost.write_text("<annotation><filename>/elsewhere/lost.png</filename></annotation>")
    assert "cannot read the image /elsewhere/lost.png: it is missing" in refusal(tmp_path)
    lost.unlink()
    picture(tmp_path / folders[0] / "more.png")
    assert len(classes_of(tmp_path)) == 3  # Not all images are of a split.


@pytest.mark.parametrize(
    "file",
    [
        *("valid/_annotations.coco.json", "test/_annotations.coco.json"),
        *("annotations/instances_val2017.json", "test.json", "test_labels.csv", "valid/t.csv"),
    ],
)
def test_a_lone_file_of_another_split_is_not_for_training(file: str, tmp_path: Path) -> None:
    path = tmp_path / file
    picture(path.parent / "a.png")
    if path.suffix == ".csv":
        forms.write(path, f"{HEADER}\na.png,cat,1,1,9,9\n")
    else:
        coco(path, ["a.png"])
    assert "has no split train (it has " in refusal(tmp_path)
    assert len(read_splits(DataSource(tmp_path))) == 1


def test_a_lone_list_of_voc_is_for_training_unless_its_name_is_another_splits(
    tmp_path: Path,
) -> None:
    root = forms.voc_with_lists(tmp_path)
    lists = root / "ImageSets/Main"
    for path in lists.glob("*.txt"):
        path.unlink()
    forms.write(lists / "default.txt", "a\n")
    assert list(classes_of(root)) == ["JPEGImages/a.jpg"]
    (lists / "default.txt").rename(lists / "Validation.txt")
    assert "has no split train (it has validation)" in refusal(root)
    assert list(classes_of(root, "val")) == ["JPEGImages/a.jpg"]


# Shares where pixels should be


def test_shares_are_refused_beside_pixels(tmp_path: Path) -> None:
    for name in ("1/a.png", "2/b.png"):
        picture(tmp_path / name)
    pixels = coco(tmp_path / "1/t.json", ["a.png"])
    shares = coco(tmp_path / "2/s.json", ["b.png"], (0.1, 0.1, 0.3, 0.3))
    complaint = f"{tmp_path / '2/b.png'}: all coordinates are below 1.5"
    assert complaint in refusal(shares)
    assert f"{complaint}, so that they seem to be shares of the image (1 of 2 images)" in refusal(
        pixels, shares
    )
    rows = "1/a.png,cat,1,1,9,9\n2/b.png,cat,.1,.1,.5,.5\n"
    forms.write(tmp_path / "t.csv", f"{HEADER}\n{rows}")
    assert complaint in refusal(tmp_path / "t.csv")


# Sizes of images


EXIF = {
    "short": b"Exif\0\0II*\0",
    "garbage": b"Exif\0\0" + bytes(range(200)),
    "long": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x04\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
    "sideways": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
}


@pytest.mark.parametrize(
    ("exif", "suffix"),
    [*((exif, suffix) for exif in EXIF for suffix in ("jpg", "png", "webp")), ("sideways", "avif")],
)
def test_the_header_has_the_size_that_decoding_gives(
    exif: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(photo_like(60, 40)).save(path, exif=EXIF[exif])
    assert header_size(path) == image_size(path)
    assert header_size(path) == ((60, 40) if exif == "sideways" else (40, 60))


def test_a_long_header_of_a_jpeg_is_read_to_its_end(tmp_path: Path) -> None:
    plain = encode(photo_like(60, 40), "JPEG")
    comments = b"\xff\xfe\xff\xff" + bytes(0xFFFD)
    path = tmp_path / "a.jpg"
    path.write_bytes(plain[:2] + 3 * comments + plain[2:])
    assert header_size(path) == image_size(path) == (40, 60)


def test_an_orientation_in_xmp_alone_turns_nothing(tmp_path: Path) -> None:
    about = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/'
    about += b'22-rdf-syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    about += b'tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    path = tmp_path / "a.jpg"
    Image.fromarray(photo_like(60, 40)).save(path, xmp=about)
    assert header_size(path) == image_size(path) == (40, 60)


def test_an_image_without_a_size_is_refused_and_loses_no_box(tmp_path: Path) -> None:
    source = forms.yolo_with_yaml(tmp_path)
    (tmp_path / "images/train/a.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    assert "a.jpg: the image cannot be decoded: the JPEG is damaged" in refusal(source)
    output = str(tmp_path / "out")
    assert main(["convert", "--data", str(source), "--to", "voc", "--output", output]) == 1


# Lists of VOC


def test_voc_lists_name_files_in_folders_with_suffixes_and_with_blanks(tmp_path: Path) -> None:
    names = ("cam1/1", "cam2/1", "1", "photo.png", "photo", "scan 1", "scan")
    for seed, name in enumerate(names):
        picture(tmp_path / f"JPEGImages/{name}.jpg", seed)
        xml(tmp_path / f"Annotations/{name}.xml", name)
    for listed in (["cam1/1"], ["cam1\\1", "1"], ["cam1/1", "cam2/1"], ["photo.png"], ["scan 1"]):
        forms.write(tmp_path / "ImageSets/Main/train.txt", "\n".join(listed))
        plain = [name.replace("\\", "/") for name in listed]
        found = classes_of(tmp_path)
        assert found == {f"JPEGImages/{name}.jpg": [name] for name in plain}, listed
    forms.write(tmp_path / "ImageSets/Main/train.txt", "photo 1\nscan -1\n")
    assert sorted(classes_of(tmp_path)) == ["JPEGImages/photo.jpg", "JPEGImages/scan.jpg"]


def test_a_foreign_path_in_a_voc_list_is_its_image(tmp_path: Path) -> None:
    picture(tmp_path / "JPEGImages/a.jpg")
    xml(tmp_path / "Annotations/A.XML", "cat")
    forms.write(tmp_path / "ImageSets/Main/train.txt", "D:\\VOC\\JPEGImages\\a.jpg\n")
    assert classes_of(tmp_path) == {"JPEGImages/a.jpg": ["cat"]}


# Files that are easily lost


def test_images_behind_links_count_and_those_of_systems_do_not(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere/b.png")
    root = tmp_path / "data"
    picture(root / "a.png")
    (root / "more").symlink_to(tmp_path / "elsewhere")
    (root / "more" / "round").symlink_to(root)
    for hidden in (".ipynb_checkpoints/a.png", "@eaDir/a.png/b.png", "__MACOSX/._a.png", "._a.png"):
        picture(root / hidden)
    (root / "gone.png").symlink_to(tmp_path / "nowhere.png")
    names = [path.relative_to(root).as_posix() for path in image_files(root, deep=True)]
    assert names == ["a.png", "gone.png", "more/b.png"]


@pytest.mark.parametrize("label", ["img_1.txt", "IMG_1.TXT", "Img_1.Txt"])
def test_labels_in_another_case_belong_to_their_images(label: str, tmp_path: Path) -> None:
    picture(tmp_path / "images/IMG_1.JPG")
    picture(tmp_path / "images/caf\u00e9.png")
    forms.write(tmp_path / "labels" / label, "0 0.5 0.5 0.5 0.5")
    forms.write(tmp_path / "labels/cafe\u0301.txt", "0 0.5 0.5 0.5 0.5")
    forms.write(tmp_path / "classes.txt", "cat\n")
    reading = read(DataSource(tmp_path))
    assert [image.names for image in reading.images] == [["cat"], ["cat"]]
    assert not any("have no image" in note for note in reading.notes)


def test_folders_of_yolo_may_be_in_any_case(tmp_path: Path) -> None:
    picture(tmp_path / "Images/a.png")
    forms.write(tmp_path / "Labels/a.txt", "0 0.5 0.5 0.5 0.5")
    forms.write(tmp_path / "classes.txt", "cat\n")
    assert classes_of(tmp_path) == {"Images/a.png": ["cat"]}
    forms.write(tmp_path / "data.yaml", "train: images\nnames: [dog]\n")
    reading = read(DataSource(tmp_path))
    assert [image.names for image in reading.images] == [["dog"]]
    assert not any("have no image" in note for note in reading.notes)


def test_an_image_that_a_list_has_twice_counts_once(tmp_path: Path) -> None:
    source = forms.yolo_with_yaml(tmp_path)
    source.write_text("train: [images/train, images/train]\nnames: [bird, cat, dog]\n")
    reading = read(DataSource(source))
    assert len(reading.images) == len(forms.IMAGES)
    assert any("listed more than once, and counted once" in note for note in reading.notes)


def test_polygons_are_told(tmp_path: Path) -> None:
    notes = read(DataSource(forms.yolo_of_segments(tmp_path))).notes
    assert any("5 polygons became the boxes around them" in note for note in notes)


# Descriptions of YOLO


@pytest.mark.parametrize("nothing", ["null", "~", ""])
def test_a_split_may_be_said_not_to_be_there(nothing: str, tmp_path: Path) -> None:
    source = forms.yolo_with_yaml(tmp_path)
    source.write_text(f"Train: images/train\nval: {nothing}\nnames: [bird, cat, dog]\n")
    assert len(classes_of(source)) == len(forms.IMAGES)
    assert main(["inspect", "--data", str(source)]) == 0


@pytest.mark.parametrize("written", ["/home/train/cells/images/train", "D:\\dev\\images\\train"])
def test_folders_of_another_machine_may_be_called_like_splits(written: str, tmp_path: Path) -> None:
    source = forms.yolo_with_yaml(tmp_path)
    source.write_text(f"train: {written}\nval: /home/val/images/train\nnames: [bird, cat, dog]\n")
    assert len(classes_of(source)) == len(forms.IMAGES)


def test_a_missing_folder_of_one_split_is_not_anothers(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    forms.write(tmp_path / "labels/a.txt", "0 0.5 0.5 0.5 0.5")
    text = "train: images\nval: valid/images\ntest: test/images\nnames: [cat]\n"
    source = forms.write(tmp_path / "data.yaml", text)
    assert f"`val` is valid/images, and there is no {tmp_path}/valid" in refusal(
        source, split="val"
    )
    source.write_text(text.replace("val: valid/images\n", ""))
    (train,) = read_splits(DataSource(source)).values()
    assert any("left out the split test: " in note for note in train.notes)


def test_of_two_folders_that_a_description_may_mean_none_is_taken(tmp_path: Path) -> None:
    for place in ("mine/train/images/a.png", "train/images/b.png"):
        picture(tmp_path / place)
    text = "train: ../train/images\nnames: [cat]\n"
    source = forms.write(tmp_path / "mine/data.yaml", text)
    assert f"{tmp_path / 'mine/train/images'} is there, too; write the path" in refusal(source)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (
            "names:\n  0: cat\n  1: dog\n  1: bird\n",
            "line 5: no valid YAML: the key 1 is there twice",
        ),
        ("names: [cat, cat]\n", "two classes are called 'cat'"),
    ],
)
def test_names_that_would_replace_each_other_are_refused(
    names: str, complaint: str, tmp_path: Path
) -> None:
    source = forms.yolo_with_yaml(tmp_path)
    source.write_text(f"train: images/train\n{names}")
    assert complaint in refusal(source)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("cat\n\ndog\n", "line 2: the line is blank, and lines number the classes"),
        ("\ncat\n", "line 1: the line is blank"),
        ("\n \n", "has no names"),
        ("cat\ncat\n", "two classes are called 'cat'"),
        ("0 cat\n1 dog\n", "line 1: '0 cat' begins with the number of its line"),
        ("0: cat\n1: dog\n", "line 1: '0: cat' begins with the number of its line"),
    ],
)
def test_a_list_of_names_whose_numbers_are_doubtful_is_refused(
    text: str, complaint: str, tmp_path: Path
) -> None:
    path = forms.write(tmp_path / "classes.txt", text)
    with pytest.raises(ModelExportError, match=complaint):
        read_names(path)


def test_names_may_begin_with_numbers_of_their_own(tmp_path: Path) -> None:
    path = forms.write(tmp_path / "classes.txt", "1 euro\n2 euro\n\n")
    assert read_names(path) == ("1 euro", "2 euro")


def test_the_folder_of_a_split_has_the_names_beside_it(tmp_path: Path) -> None:
    picture(tmp_path / "train/images/a.png")
    forms.write(tmp_path / "train/labels/a.txt", "1 0.5 0.5 0.5 0.5")
    forms.write(tmp_path / "data.yaml", "train: train/images\nnames: [cat, dog]\n")
    assert classes_of(tmp_path / "train") == {"images/a.png": ["dog"]}


# COCO and CSV


def test_a_number_may_be_text_in_some_lists_of_coco(tmp_path: Path) -> None:
    source = forms.coco_beside(tmp_path)
    content = forms.coco_content()
    for each in content["annotations"]:
        each.update(image_id=str(each["image_id"]), category_id=str(each["category_id"]))
    plain = read(DataSource(source)).images
    source.write_text(json.dumps(content))
    assert read(DataSource(source)).images == plain


def test_a_polygon_without_a_box_gets_the_one_around_it(tmp_path: Path) -> None:
    entry = annotation(10, 4, 0, 0, 0, 0)
    entry.update(bbox=[], segmentation=[[5, 5, 20, 6, 8, 30], [18, 9, 25, 9, 25, 12]])
    (image, _) = read(DataSource(coco_json(tmp_path, [entry]))).images
    assert image.corners == [(5, 5, 25, 30)]


def test_images_of_fiftyone_and_lvis_are_found(tmp_path: Path) -> None:
    picture(tmp_path / "data/a.png")
    source = coco(tmp_path / "labels.json", ["a.png"])
    assert classes_of(tmp_path) == {"data/a.png": ["cat"]}
    content = json.loads(source.read_text())
    content["images"] = [{"id": 0, "coco_url": "http://example.org/train2017/a.png"}]
    source.write_text(json.dumps(content))
    assert classes_of(tmp_path) == {"data/a.png": ["cat"]}


@pytest.mark.parametrize("before", ["", "\n", "sep=;\n", "\ufeffsep=;\r\n"])
def test_the_first_lines_of_a_csv_may_be_blank_or_name_its_delimiter(
    before: str, tmp_path: Path
) -> None:
    picture(tmp_path / "Train/a.png")
    rows = f'{HEADER}\na.png,"cat\nbig",1,1,9,9\na.png,dog,x,1,9,9\n'.replace(",", ";")
    source = forms.write(tmp_path / "Train_labels.csv", before + rows)
    line = 4 + before.count("\n")
    assert f"line {line}: x1 is 'x', which is no number" in refusal(source)
    source.write_text((before + rows).replace(";x;", ";1;"))
    assert classes_of(source) == {"Train/a.png": ["cat\nbig", "dog"]}


# What `convert` writes can be read


@pytest.mark.parametrize("form", ["coco", "yolo", "voc", "csv"])
@pytest.mark.parametrize(
    "name", ["photo.png.jpg", "x.xml.jpg", " lead.jpg", "blank .jpg", "scan 1.jpg", "a\nb.jpg"]
)
def test_odd_names_of_images_come_back(form: str, name: str, tmp_path: Path) -> None:
    picture(tmp_path / "data" / name)
    source = coco(tmp_path / "data/t.json", [name], (5, 5, 300, 20))
    output = tmp_path / "out"
    assert main(["convert", "--data", str(source), "--to", form, "--output", str(output)]) == 0
    written = output / {"coco": "train.json", "yolo": "data.yaml"}.get(form, "")
    (image,) = check_images(read_source(DataSource(written))).images
    assert image.boxes_xyxy.round(3).tolist() == [[5, 5, 60, 25]]


def test_class_names_that_no_file_can_hold_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "a.png")
    source = coco(tmp_path / "t.json", ["a.png"])
    text = source.read_text()
    source.write_text(text.replace('"cat"', '"\\ud83d"'))
    assert r"the class '\ud83d' has half of a character" in refusal(source)
    source.write_text(text.replace('"cat"', '"cat\\nbig"'))
    output = str(tmp_path / "out")
    assert main(["convert", "--data", str(source), "--to", "csv", "--output", output]) == 1
    assert r"'cat\nbig' has a line break" in capsys.readouterr().err
