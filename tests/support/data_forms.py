"""Writes the same small data set in many forms, without the project's own writers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from support.pictures import encode, photo_like

WIDTH, HEIGHT = 160, 120
NAMES = ("bird", "cat", "dog")


class Box(NamedTuple):
    name: str
    x1: int
    y1: int
    x2: int
    y2: int


# Not in the order of the names; `d.jpg` has no objects.
IMAGES = {
    "c.jpg": [Box("dog", 10, 20, 61, 87)],
    "a.jpg": [Box("cat", 3, 5, 47, 66), Box("bird", 80, 31, 153, 119)],
    "d.jpg": [],
    "b 1.jpg": [Box("bird", 0, 0, 160, 120), Box("dog", 17, 23, 34, 41)],
}


def photo(path: Path) -> Path:
    """Write a photo that differs with the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.name.encode())
    path.write_bytes(encode(photo_like(WIDTH, HEIGHT, seed=seed), "JPEG"))
    return path


def coco_content(names: dict[str, str] | None = None) -> dict[str, list[dict[str, object]]]:
    """The json, with the file names that `names` gives to the images."""
    ids = {file: number for number, file in enumerate(IMAGES, start=1)}
    written = names or {}
    return {
        "images": [
            {"id": ids[file], "file_name": written.get(file, file), "width": 160, "height": 120}
            for file in IMAGES
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)],
        "annotations": [
            {
                "id": 100 * ids[file] + at,
                "image_id": ids[file],
                "category_id": NAMES.index(box.name) + 1,
                "bbox": [box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1],
            }
            for file, boxes in IMAGES.items()
            for at, box in enumerate(boxes)
        ],
    }


def yolo_lines(boxes: list[Box], decimals: int = 6) -> str:
    """Labels of boxes."""
    lines = []
    for name, x1, y1, x2, y2 in boxes:
        centre = (x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT
        shares = (*centre, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT)
        numbers = " ".join(f"{share:.{decimals}f}" for share in shares)
        lines.append(f"{NAMES.index(name)} {numbers}\n")
    return "".join(lines)


def voc_text(file: str, boxes: list[Box]) -> str:
    """The XML of an image."""
    objects = "".join(
        f"<object><name>{box.name}</name><bndbox><xmin>{box.x1}</xmin><ymin>{box.y1}</ymin>"
        f"<xmax>{box.x2}</xmax><ymax>{box.y2}</ymax></bndbox></object>"
        for box in boxes
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation><filename>{file}</filename>{size}{objects}</annotation>"


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)
    return path


def coco_beside(root: Path) -> Path:
    for file in IMAGES:
        photo(root / file)
    return write(root / "train.json", json.dumps(coco_content()))


def coco_of_roboflow(root: Path) -> Path:
    content = coco_content()
    content["categories"] = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        *({**each, "supercategory": "pets"} for each in content["categories"]),
    ]
    for file in IMAGES:
        photo(root / "train" / file)
    write(root / "train/_annotations.coco.json", json.dumps(content))
    return root


def coco_of_cvat(root: Path) -> Path:
    for file in IMAGES:
        photo(root / "images" / file)
    content = coco_content()
    for each in content["annotations"]:
        each.update(segmentation=[], attributes={"occluded": False}, iscrowd=0)
    write(root / "annotations/instances_default.json", json.dumps(content))
    return root


def coco_of_label_studio(root: Path) -> Path:
    """Windows paths of the machine that exported it, with `%20`, and a byte order mark."""
    for file in IMAGES:
        photo(root / "images" / file)
    names = {
        file: f"..\\..\\label-studio\\upload\\1\\{file.replace(' ', '%20')}" for file in IMAGES
    }
    write(root / "result.json", json.dumps(coco_content(names)), "utf-8-sig")
    return root


def yolo_with_yaml(root: Path) -> Path:
    for file, boxes in IMAGES.items():
        photo(root / "images/train" / file)
        if boxes:
            write(root / "labels/train" / f"{Path(file).stem}.txt", yolo_lines(boxes))
    text = "path: .\ntrain: images/train\nval: images/val\ntest:\nnames: [bird, cat, dog]\n"
    return write(root / "data.yaml", text)


def yolo_of_roboflow(root: Path) -> Path:
    """Paths that lead out of the folder, a map of names, and an empty label file."""
    for file, boxes in IMAGES.items():
        photo(root / "train/images" / file)
        write(root / "train/labels" / f"{Path(file).stem}.txt", yolo_lines(boxes))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(NAMES))
    text = f"train: ../train/images\nval: ../valid/images\nnc: 3\nnames:\n{names}"
    write(root / "data.yaml", text, "utf-8-sig")
    return root


def yolo_with_lists(root: Path) -> Path:
    """Paths of another machine in a list, as Darknet has them."""
    for file, boxes in IMAGES.items():
        photo(root / "obj_train_data" / file)
        write(root / "obj_train_data" / f"{Path(file).stem}.txt", yolo_lines(boxes))
    write(root / "train.txt", "".join(f"data\\obj_train_data\\{file}\n" for file in IMAGES))
    write(root / "obj.names", "".join(f"{name}\n" for name in NAMES))
    text = "classes = 3\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    write(root / "obj.data", text)
    return root


def yolo_of_segments(root: Path) -> Path:
    """Polygons, and the names in classes.txt alone."""
    for file, boxes in IMAGES.items():
        photo(root / "images" / file)
        lines = [
            f"{NAMES.index(name)} {x1 / WIDTH:.8f} {y2 / HEIGHT:.8f} {x1 / WIDTH:.8f} "
            f"{y1 / HEIGHT:.8f} {x2 / WIDTH:.8f} {(y1 + y2) / 2 / HEIGHT:.8f}\n"
            for name, x1, y1, x2, y2 in boxes
        ]
        write(root / "labels" / f"{Path(file).stem}.txt", "".join(lines))
    write(root / "classes.txt", "".join(f"{name}\n" for name in NAMES))
    return root


def voc_side_by_side(root: Path) -> Path:
    """As Roboflow and LabelImg have it; an image without objects has no XML."""
    for file, boxes in IMAGES.items():
        photo(root / "train" / file)
        if boxes:
            write(root / "train" / f"{Path(file).stem}.xml", voc_text(file, boxes))
    return root


def voc_in_two_folders(root: Path) -> Path:
    """Other encodings, and file names in them that are no longer true."""
    encodings = ("utf-16", "iso-8859-1", "gb2312", "utf-8-sig")
    for (file, boxes), encoding in zip(IMAGES.items(), encodings, strict=True):
        photo(root / "images" / file)
        declared = encoding.removesuffix("-sig")
        text = f'<?xml version="1.0" encoding="{declared}"?>{voc_text("old.jpg", boxes)}'
        write(root / "annotations" / f"{Path(file).stem}.xml", text, encoding)
    return root


def voc_with_lists(root: Path) -> Path:
    """Suffixes and a byte order mark in the list, and the suffix of one image in capitals."""
    for file, boxes in IMAGES.items():
        photo(root / "JPEGImages" / file)
        write(root / "Annotations" / f"{Path(file).stem}.xml", voc_text(file, boxes))
    write(root / "ImageSets/Main/train.txt", "".join(f"{file}\n" for file in IMAGES), "utf-8-sig")
    return root


def csv_of_tensorflow(root: Path) -> Path:
    rows = [
        f"{file},{WIDTH},{HEIGHT},{','.join(map(str, box))}\n"
        for file, boxes in IMAGES.items()
        for box in boxes
    ]
    for file in IMAGES:
        photo(root / "images" / file)
    title = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    return write(root / "train_labels.csv", f"{title}{''.join(rows)}d.jpg,160,120,,,,,\n")


def csv_of_roboflow(root: Path) -> Path:
    """Lists no image without objects; written by a spreadsheet, with semicolons."""
    path = csv_of_tensorflow(root / "train")
    for image in (root / "train/images").iterdir():
        image.rename(root / "train" / image.name)
    lines = [line.replace(",", ";") for line in path.read_text().splitlines() if line[0] != "d"]
    write(root / "train/_annotations.csv", "\r\n".join(lines), "utf-8-sig")
    path.unlink()
    return root


def csv_of_automl(root: Path) -> Path:
    rows = [
        f"TRAIN,gs://bucket/{file},{name},{x1 / WIDTH:.9f},{y1 / HEIGHT:.9f},,,"
        f"{x2 / WIDTH:.9f},{y2 / HEIGHT:.9f},,\n"
        for file, boxes in IMAGES.items()
        for name, x1, y1, x2, y2 in boxes
    ]
    for file in IMAGES:
        photo(root / file)
    return write(root / "import.csv", f"{''.join(rows)}TRAIN,gs://bucket/d.jpg,,,,,,,,,\n")


def csv_without_header(root: Path) -> Path:
    rows = [
        f"{file},{box.x1},{box.y1},{box.x2},{box.y2},{box.name}\n"
        for file, boxes in IMAGES.items()
        for box in boxes
    ]
    for file in IMAGES:
        photo(root / file)
    return write(root / "boxes.csv", f"{''.join(rows)}d.jpg,,,,,\n")


FORMS: dict[str, Callable[[Path], Path]] = {
    each.__name__: each
    for each in (
        coco_beside,
        coco_of_roboflow,
        coco_of_cvat,
        coco_of_label_studio,
        yolo_with_yaml,
        yolo_of_roboflow,
        yolo_with_lists,
        yolo_of_segments,
        voc_side_by_side,
        voc_in_two_folders,
        voc_with_lists,
        csv_of_tensorflow,
        csv_of_roboflow,
        csv_of_automl,
        csv_without_header,
    )
}
