"""Which confidence suits a model: precision, recall and F1 on annotated photos, for both scores.

    python benchmarks/thresholds.py --model FILE.onnx --annotations instances.json --images photos/
      [--plot docs/thresholds.png]

The model finds objects as the server does, with every confidence from 0.05 to 0.95 in turn and the
server's defaults otherwise (soft-mean, IoU 0.45, boxes of all classes compete). A detection is
right if COCO's own evaluation matches it with an object of its class at an IoU of 0.5; each object
is matched once, and detections on crowds count as neither right nor wrong.

precision  share of the detections that are right
recall     share of the objects that are found
F1         harmonic mean of both
"""

import argparse
import contextlib
import hashlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from model_export.errors import ModelExportError
from model_export.measure.coco import CocoResult, CocoSet, read_coco_set
from model_export.measure.evaluate import detect_all
from model_export.measure.local_detector import LocalDetector, Network, load_onnx
from service.core.contract import ScoreBy
from service.core.suppress import DetectionOptions

CONFIDENCES = tuple(round(0.05 * step, 2) for step in range(1, 20))
MATCHING_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Point:
    """The result of one confidence, all classes together."""

    confidence: float
    right: int
    detections: int
    objects: int

    @property
    def precision(self) -> float:
        """The share of detections that are right; 1 where there are none."""
        return self.right / self.detections if self.detections else 1.0

    @property
    def recall(self) -> float:
        """The share of objects that are found."""
        return self.right / self.objects

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.right / (self.detections + self.objects)


def main() -> int:
    """Measure, print the tables, and draw the plot if one is asked for."""
    arguments = parser().parse_args()
    try:
        curves = measure(arguments.model, read_coco_set(arguments.annotations, arguments.images))
    except ModelExportError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for score_by, points in curves.items():
        print(table(score_by, points))
    if arguments.plot:
        draw(curves).savefig(arguments.plot, dpi=110)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    first, *rest = str(__doc__).splitlines()
    made = argparse.ArgumentParser(
        description=first,
        epilog="\n".join(rest),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--model", type=Path, required=True, help="an ONNX file with a contract")
    made.add_argument("--annotations", type=Path, required=True, help="a COCO json")
    made.add_argument("--images", type=Path, required=True, help="the folder of its images")
    made.add_argument("--plot", type=Path, metavar="PNG", help="file for a plot")
    return made


def measure(model: Path, coco: CocoSet) -> dict[ScoreBy, list[Point]]:
    """The points of every confidence, for each score.

    Raises:
        ModelExportError: The model or an image cannot be read, or no class matches.
    """
    network, contract = load_onnx(model)
    network = remembered(network)
    return {
        score_by: [
            point(
                coco,
                detect_all(
                    LocalDetector(network, contract, DetectionOptions(confidence, score_by)),
                    coco,
                    concurrency=1,
                    on_image=lambda: None,
                ),
                confidence,
            )
            for confidence in CONFIDENCES
        ]
        for score_by in get_args(ScoreBy)
    }


def remembered(network: Network) -> Network:
    """A network that runs each input once, since only the thresholds change."""
    rows: dict[bytes, NDArray[np.floating]] = {}

    def run(images: NDArray[np.uint8]) -> NDArray[np.floating]:
        key = hashlib.sha256(images.tobytes() + repr(images.shape).encode()).digest()
        if key not in rows:
            rows[key] = network(images)
        return rows[key]

    return run


def point(coco: CocoSet, results: list[CocoResult], confidence: float) -> Point:
    """Count the right detections by COCO's own matching."""
    with contextlib.redirect_stdout(io.StringIO()):
        found = coco.truth.loadRes(results) if results else type(coco.truth)()
        evaluation = COCOeval(coco.truth, found, "bbox")
        evaluation.params.iouThrs = np.array([MATCHING_IOU])
        evaluation.params.areaRng = [[0.0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.params.maxDets = [1000]
        evaluation.evaluate()
    images = [image for image in evaluation.evalImgs if image]
    right = sum(int(((i["dtMatches"][0] > 0) & ~i["dtIgnore"][0]).sum()) for i in images)
    detections = sum(int((~i["dtIgnore"][0].astype(bool)).sum()) for i in images)
    objects = sum(int((np.asarray(i["gtIgnore"]) == 0).sum()) for i in images)
    return Point(confidence, right, detections, objects)


def table(score_by: ScoreBy, points: list[Point]) -> str:
    """A Markdown table."""
    rows = [
        f"| {p.confidence:.2f} | {p.precision:.3f} | {p.recall:.3f} | {p.f1:.3f} | {p.detections} |"
        for p in points
    ]
    head = [f"| `{score_by}` | precision | recall | F1 | detections |", "| --- " * 5 + "|"]
    return "\n".join([*head, *rows, ""])


def draw(curves: dict[ScoreBy, list[Point]]) -> Figure:
    """Precision, recall and F1 over the confidence, a panel for each score."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, len(curves), sharey=True)
    for panel, (score_by, points) in zip(panels, curves.items(), strict=True):
        confidences = [p.confidence for p in points]
        for name, style in (("precision", "--"), ("recall", ":"), ("f1", "-")):
            label = "F1" if name == "f1" else name
            panel.plot(confidences, [getattr(p, name) for p in points], style, label=label)
        best = max(points, key=lambda p: p.f1)
        panel.axvline(best.confidence, color="grey", linewidth=0.8)
        panel.set(title=f"score_by={score_by}", xlabel="confidence", xlim=(0, 1), ylim=(0, 1))
        panel.grid(alpha=0.3)
    panels[0].legend(loc="lower center")
    return figure


if __name__ == "__main__":
    sys.exit(main())
