"""The page of a run shows what was found, and needs no other file."""

import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

from model_export.data.annotations import AnnotatedImage
from model_export.measure.coco import METRIC_NAMES, Metrics
from model_export.measure.thresholds import ARTICLE, Quality, Thresholds
from model_export.report.events import EpochEnded, LossValues
from model_export.report.plots import plot_losses
from model_export.report.run_folder import Best, RunFolder
from service.core.decode import Detections
from support.pictures import plain

NAMES = ("cat <1>", "$dog_x$")


def thresholds(folder: Path) -> Thresholds:
    """A cat with a loose box, a dog taken for a cat, a cat that was missed and a ghost."""
    path = folder / "a.png"
    path.write_bytes(plain())
    boxes = [(0, 0, 20, 20), (30, 30, 60, 60), (0, 40, 9, 49)]
    truth = AnnotatedImage(path, 1, (64, 64), np.array(boxes, np.float32), np.array([0, 1, 0]))
    found = np.array([(0, 0, 20, 12), (30, 30, 60, 60), (50, 0, 60, 10)], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    quality = Quality(0.37, 0.5, 0.6, 0.4)
    detections = Detections(found, scores, scores, np.array([0, 0, 1]), np.ones_like(scores))
    return Thresholds(
        ARTICLE, quality, {NAMES[0]: quality}, [quality], {"hard": 0.5}, [detections], [truth]
    )


def test_finished_run_has_a_page_with_every_picture_inside(tmp_path: Path) -> None:
    metrics = Metrics(dict.fromkeys(METRIC_NAMES, 0.25), {})
    best = Best(0, metrics, thresholds(tmp_path), NAMES)

    folder = RunFolder(tmp_path)
    settings = {"epochs": 3, "data": {"path": "cells.json", "more": []}, "scale": [0.5, 1.5]}
    folder.config.write_text(json.dumps(settings))
    folder.finish([], best)
    folder.show(best, "12.5 ms per image")

    page = (tmp_path / "report.html").read_text()
    for text in (
        "12.5 ms per image",
        "missed objects: 1",
        "no object: 1",
        "another class: 1",
        "below 0.7: 1",
        "soft-mean above IoU 0.45",
        *("data.path", "cells.json", "0.5, 1.5"),
    ):
        assert text in page
    assert "cat &lt;1&gt;" in page
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) >= 8
    assert all(source.startswith("data:image/") for source in sources)
    told = json.loads((tmp_path / "metrics.json").read_text())["thresholds"]
    assert told["overall"]["confidence"] == 0.37
    assert told["by_class"] == {NAMES[0]: told["overall"]}
    with Image.open(tmp_path / "confusion.png") as image:
        assert np.mean(np.asarray(image.convert("L")) < 250) > 0.02


def test_closing_epochs_are_marked(tmp_path: Path) -> None:
    losses = LossValues(5.0, 2.0, 1.0, 1.0, 1.0, 3.5)
    epochs = [EpochEnded(i, 0.01, losses, 1.0, 1.0, None) for i in range(4)]
    pictures = []
    for closing_from in (None, 2, 9):
        plot_losses(epochs, tmp_path / "a.png", closing_from=closing_from)
        with Image.open(tmp_path / "a.png") as image:
            pictures.append(np.asarray(image.convert("RGB")))
    assert (pictures[0] == pictures[2]).all(), "epochs that are still to come are marked"
    changed = (pictures[0] != pictures[1]).any(axis=2).any(axis=0)
    assert changed[changed.size // 2 :].mean() > 0.5
