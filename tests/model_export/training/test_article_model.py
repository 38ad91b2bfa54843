"""The article's loss, box coding and suppression, from a training to a served answer."""

import json
import math
from pathlib import Path

import cv2
import onnx
import pytest
import torch

from model_export.__main__ import main
from model_export.drawing.demo_data import shapes, write_demo_data
from model_export.model.checkpoint import load_weights, read_state_dict
from model_export.model.yolox import build
from service.core.contract import ModelContract
from support.servers import server

SIDE = 64
NAMES = ("circle", "square", "triangle")
CONFIDENCE, OVERLAP = 0.02, 0.1

Box = tuple[float, float, float, float]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training; 84 cells of 64 x 64 pixels find the same things often enough to compete."""
    folder = tmp_path_factory.mktemp("article")
    write_demo_data(folder, shapes(SIDE, 0), train=8, val=2)
    command = (
        f"train --data {folder / 'train.json'} --val {folder / 'val.json'} "
        f"--output {folder / 'run'} --variant pico --box-coding anchor_point --loss article "
        f"--size {SIDE} --epochs 12 --closing-epochs 2 --evaluate-every 12 --batch-size 8 "
        "--rate-per-image 0.0125 --average-decay 0.9 --average-ramp 5 --mosaic 0 --multiscale 0 "
        "--workers 0 --device cpu"
    )
    assert main(command.split()) == 0
    return folder / "run"


def decoded(weights: Path, image: Path) -> list[tuple[float, Box]]:
    """Objectness and box of each confident cell, by the article's formulas, in plain loops."""
    model = build("pico", len(NAMES)).eval()
    load_weights(model, weights)
    pixels = torch.from_numpy(cv2.imread(str(image))).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        rows = iter(model(pixels)[0].tolist())
    found = []
    for stride in (8, 16, 32):
        for j in range(SIDE // stride):
            for i in range(SIDE // stride):
                p_x, p_y, p_w, p_h, objectness, *_ = next(rows)
                score = 1 / (1 + math.exp(-objectness))
                x, y = stride / 2 + stride * i + p_x, stride / 2 + stride * j + p_y
                box = (x, y, x + stride * math.exp(p_w), y + stride * math.exp(p_h))
                if score >= CONFIDENCE:
                    found.append((score, box))
    return found


def test_a_training_begins_with_boxes_around_the_cells_centres(run: Path) -> None:
    state = read_state_dict(run / "best.pth")
    for level, stride in enumerate((8, 16, 32)):
        corners = state[f"head.reg_preds.{level}.bias"][:2]
        # Four strides wide, and a few steps have moved them a little.
        assert corners.tolist() == pytest.approx([-2 * stride] * 2, abs=stride)


def overlap(a: Box, b: Box) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


def suppressed(found: list[tuple[float, Box]]) -> tuple[list[tuple[float, Box]], int]:
    """The article's Soft-NMS; and how many scores it lowered."""
    kept, lowered, rest = [], 0, list(found)
    while rest:
        best = max(rest)
        rest.remove(best)
        kept.append(best)
        mean = sum(score for score, _ in rest) / max(1, len(rest))
        after = []
        for score, box in rest:
            shared = overlap(best[1], box)
            competes = shared > OVERLAP
            lowered += competes
            decayed = score * math.exp(-(shared**2) / mean) if competes else score
            if decayed >= CONFIDENCE:
                after.append((decayed, box))
        rest = after
    return kept, lowered


# A whole training, an export and a server; their parts have quicker tests.
@pytest.mark.heavy
def test_the_articles_model_answers_as_the_article_says(run: Path) -> None:
    entries = {each.key: each.value for each in onnx.load(run / "model.onnx").metadata_props}
    assert ModelContract.from_metadata(entries).box_coding == "anchor_point"
    assert json.loads((run / "config.json").read_text())["loss"] == "article"
    image = min((run.parent / "images").iterdir())
    expected, lowered = suppressed(decoded(run / "best.pth", image))
    assert lowered > len(expected) > 0

    options = {
        "confidence": CONFIDENCE,
        "score_by": "objectness",
        "nms": "soft-mean",
        "iou": OVERLAP,
        "class_agnostic": True,
    }
    with server(run / "model.onnx") as running:
        answer = running.client.post("/detect", params=options, content=image.read_bytes())

    detections = answer.json()["results"][0]["detections"]
    inside = [(score, clipped(box)) for score, box in expected]
    assert [each["score"] for each in detections] == pytest.approx(
        [score for score, _ in inside], abs=1e-4
    )
    for each, (_, box) in zip(detections, inside, strict=True):
        assert [each["box"][name] for name in ("x1", "y1", "x2", "y2")] == pytest.approx(
            box, abs=0.02
        )


def clipped(box: Box) -> list[float]:
    return [min(max(value, 0.0), SIDE) for value in box]
