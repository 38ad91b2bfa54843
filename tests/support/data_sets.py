"""Writes small annotated data sets."""

import json
from pathlib import Path

from support.pictures import encode, photo_like

Box = tuple[float, float, float, float]


def coco_json(folder: Path, annotations: list[dict[str, object]], count: int = 2) -> Path:
    """A COCO json and its images, 60 x 40 pixels each, named 0.png, 1.png and so on."""
    for i in range(count):
        (folder / f"{i}.png").write_bytes(encode(photo_like(60, 40, seed=i)))
    content = {
        "images": [
            {"id": 10 + i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in range(count)
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
        "annotations": annotations,
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def annotation(
    image: int, category: int, x: float, y: float, w: float, h: float
) -> dict[str, object]:
    return {"image_id": image, "category_id": category, "bbox": [x, y, w, h]}


def voc_folder(root: Path, objects: dict[str, list[tuple[str, Box]]]) -> Path:
    """A VOC folder whose split `train` has these images, 60 x 40 pixels each."""
    for name in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (root / name).mkdir(parents=True)
    for stem, boxes in objects.items():
        (root / "JPEGImages" / f"{stem}.jpg").write_bytes(encode(photo_like(60, 40), "JPEG"))
        (root / "Annotations" / f"{stem}.xml").write_text(voc_xml(boxes))
    (root / "ImageSets/Main/train.txt").write_text("".join(f"{stem}\n" for stem in objects))
    return root


def voc_xml(boxes: list[tuple[str, Box]]) -> str:
    corners = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{key}>{value}</{key}>" for key, value in zip(corners, box, strict=True))
        + "</bndbox></object>"
        for name, box in boxes
    )
    size = "<size><width>60</width><height>40</height></size>"
    return f"<annotation>{size}{objects}</annotation>"
