"""The whole loop: served, captured, labelled, trained, compared, promoted, without a stop."""

import json
import random
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model_export.__main__ import main
from model_export.drawing.demo_data import shapes, write_demo_data
from service.capture.folder import CaptureFolder, FolderLimits
from support.servers import Server

SIGHUP = 1
# Learns a handful of pictures by heart, which shows the loop; real models see more.
TRAINING = (
    "--size 96 --batch-size 8 --rate-per-image 0.0125 --average-decay 0.95 --average-ramp 20 "
    "--norm-images 64 --mosaic 0 --flip 0 --hsv 0 --multiscale 0 --workers 0 --device cpu "
    "--warmup-epochs 10 --loss article --evaluate-every 80"
)


class Client(threading.Thread):
    """Sends the pictures in changing order until it is stopped, and keeps what came back."""

    def __init__(self, server: Server, pictures: list[Path]) -> None:
        super().__init__(daemon=True)
        self._client = server.client
        self._contents = [path.read_bytes() for path in pictures]
        self.statuses: list[int] = []
        self.versions: list[str] = []
        self.ended = threading.Event()

    def run(self) -> None:
        chance = random.Random(0)  # noqa: S311 - no secret
        while not self.ended.is_set():
            # In one order always, the limit of pictures an hour would leave out the last ones.
            for content in chance.sample(self._contents, len(self._contents)):
                answer = self._client.post("/detect", content=content)
                self.statuses.append(answer.status_code)
                if answer.status_code == 200:
                    self.versions.append(answer.json()["model"]["version"])
            time.sleep(0.5)


@contextmanager
def served(models: Path, captured: Path) -> Iterator[Server]:
    flags = ["--models", str(models), "--capture", str(captured), "--capture-share", "1"]
    server = Server(*flags, "--capture-per-hour", "36000", "--model-poll-s", "0")
    try:
        yield server
    finally:
        server.close()


def train(data: Path, output: Path, *more: str) -> Path:
    """Train on a COCO json, and give the exported model."""
    command = ["train", "--data", str(data), "--val", str(data), "--output", str(output)]
    assert main([*command, *TRAINING.split(), *more]) == 0
    return output / "model.onnx"


def without(coco: dict[str, Any], name: str) -> dict[str, Any]:
    """The same annotations without the boxes of a class."""
    (gone,) = [each["id"] for each in coco["categories"] if each["name"] == name]
    kept = [each for each in coco["annotations"] if each["category_id"] != gone]
    return coco | {"annotations": kept}


def labelled(captured: Path, truth: dict[str, Any], drawn: Path) -> Path:
    """The work of a person: to look at each captured picture, drop copies, and correct boxes.

    The person here knows the pictures: they are those that were drawn, saved once more. Some were
    sent more often than others, so with the copies the training would differ with the timing.
    """
    known = {each["id"]: pixels(drawn / each["file_name"]) for each in truth["images"]}
    until(lambda: shown(captured, known) == known.keys())
    recount(captured)
    coco = json.loads((captured / "annotations.json").read_text(encoding="utf-8"))
    images, annotations = dict[int, dict[str, Any]](), list[dict[str, Any]]()
    for image in coco["images"]:
        id_drawn = recognized(captured / image["file_name"], known)
        if id_drawn in images:
            continue
        images[id_drawn] = image
        for box in truth["annotations"]:
            if box["image_id"] == id_drawn:
                annotations.append(box | {"image_id": image["id"], "id": len(annotations) + 1})
    corrected = {
        "images": [*images.values()],
        "annotations": annotations,
        "categories": truth["categories"],
    }
    path = captured / "corrected.json"
    path.write_text(json.dumps(corrected), encoding="utf-8")
    return path


def shown(captured: Path, known: dict[int, Any]) -> set[int]:
    """The drawn pictures of which there are captured ones."""
    records = (captured / "records").glob("*.json")
    return {recognized(captured / "images" / f"{each.stem}.jpg", known) for each in records}


def recognized(path: Path, known: dict[int, Any]) -> int:
    """The id of the drawn picture that a captured one shows."""
    seen = pixels(path)
    return min(known, key=lambda each: float(np.abs(known[each] - seen).mean()))


def pixels(path: Path) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), np.float32)


def names_found(server: Server, pictures: list[Path], version: str) -> list[str]:
    """The classes of all boxes in the pictures, best first in each."""
    found = list[str]()
    for picture in pictures:
        answer = server.client.post(f"/detect?version={version}", content=picture.read_bytes())
        found += [each["class_name"] for each in answer.json()["results"][0]["detections"]]
    return found


def until(condition: Any, seconds: float = 30) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.1)


# Two trainings of a minute or two each on slow CPUs.
@pytest.mark.heavy
@pytest.mark.timeout(1500)
def test_a_class_that_a_model_misses_is_learnt_without_a_stop(tmp_path: Path) -> None:
    drawn, models, captured = tmp_path / "drawn", tmp_path / "models", tmp_path / "captured"
    write_demo_data(drawn, shapes(96, 0), train=8, val=1)
    truth = json.loads((drawn / "train.json").read_text(encoding="utf-8"))
    (drawn / "first.json").write_text(json.dumps(without(truth, "square")), encoding="utf-8")
    pictures = [drawn / each["file_name"] for each in truth["images"]]
    squares = sum(
        each["category_id"] == category["id"]
        for category in truth["categories"]
        for each in truth["annotations"]
        if category["name"] == "square"
    )
    assert squares > 3

    first = train(
        drawn / "first.json", tmp_path / "first", "--epochs", "160", "--closing-epochs", "20"
    )
    (models / "shapes" / "1").mkdir(parents=True)
    shutil.copy(first, models / "shapes" / "1" / "model.onnx")
    with served(models, captured) as server:
        assert "square" not in names_found(server, pictures, "1")
        client = Client(server, pictures)
        client.start()
        # The sum of all is written when the first has come, and later on at times.
        until(lambda: len(coco_images(captured)) >= 1)
        corrected = labelled(captured, truth, drawn)

        weights = str(tmp_path / "first" / "best.pth")
        more = ["--weights", weights, "--epochs", "240", "--closing-epochs", "20"]
        second = train(corrected, tmp_path / "second", *more)
        (models / "shapes" / "2").mkdir()
        shutil.copy(second, models / "shapes" / "2" / "model.onnx")
        traffic = models / "shapes" / "traffic.json"
        traffic.write_text('{"versions": {"1": 50, "2": 50}}', encoding="utf-8")
        server.send(SIGHUP)
        until(lambda: {"1", "2"} <= set(client.versions[-40:]))
        traffic.write_text('{"versions": {"2": 1}}', encoding="utf-8")
        server.send(SIGHUP)
        until(lambda: set(client.versions[-20:]) == {"2"})
        client.ended.set()
        client.join(timeout=30)
        found = names_found(server, pictures, "2")
    assert set(client.statuses) == {200}, "no request was lost on the way"
    assert found.count("square") >= 0.8 * squares
    assert {"circle", "triangle"} <= set(found)


def coco_images(captured: Path) -> list[Any]:
    path = captured / "annotations.json"
    if not path.exists():
        return []
    images: list[Any] = json.loads(path.read_text(encoding="utf-8"))["images"]
    return images


def recount(captured: Path) -> None:
    """Write the sum of all now, as the server does when it stops."""
    CaptureFolder(captured, "picture", FolderLimits(max_mb=100, max_days=1)).tidy()
