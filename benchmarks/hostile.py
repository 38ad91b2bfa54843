"""The worst-case cost of an image: every cell of the grid reports an object.

    python benchmarks/hostile.py [--boxes spread|heaped]

Rows like those of a hostile image at a threshold of 0, for YOLOX at 416 (3,549 cells) and at 640
(8,400 cells), go through the filter, decoding and suppression, with the server's default limits and
without limits. The output has the milliseconds on one thread, and their ratio to decoding an
ordinary phone photo of 12 megapixels, which should be at most 1 with the default limits. Boxes are
either spread over the image, so that few suppress one another and the loop is long, or heaped onto
one another.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.core.contract import InputSpec, ModelContract, NmsMethod
from service.core.letterbox import letterbox
from service.core.postprocess import find_objects
from service.core.suppress import DetectionOptions
from service.imaging.read import read_image

SIDES = (416, 640)
CLASSES = 80
METHODS: tuple[NmsMethod, ...] = ("soft-mean", "soft-gaussian", "soft-linear", "hard", "none")
PHOTO_SIDES = (4000, 3000)
MOST_RATIO = 1.0
TIMES = 7
# Ranges of the log sizes, in strides: from half a cell to as large as the image.
LOG_SIZES = {"spread": (-0.7, 0.3), "heaped": (2.0, 4.0)}


def main() -> None:
    """Measure, and print the table."""
    arguments = _arguments()
    content = photo()
    decode_ms = median_ms(lambda: read_image(content, 10**8, fit=(SIDES[0], SIDES[0])))
    print(f"decoding a photo of {PHOTO_SIDES[0]} x {PHOTO_SIDES[1]}: {decode_ms:.1f} ms")
    print(f"{'cells':>6} {'method':14} {'by default':>12} {'ratio':>6} {'limits open':>12}")
    worst = 0.0
    for side, method in product(SIDES, METHODS):
        rows, usual = hostile_rows(side, arguments.boxes), DetectionOptions(0.0, nms=method)
        opened = replace(usual, max_candidates=len(rows), max_detections=len(rows))
        costs = [median_ms(finding(rows, side, options)) for options in (usual, opened)]
        ratio = costs[0] / decode_ms
        worst = max(worst, ratio)
        print(f"{len(rows):6} {method:14} {costs[0]:9.1f} ms {ratio:6.2f} {costs[1]:9.1f} ms")
    verdict = "within" if worst <= MOST_RATIO else "MISSES"
    print(f"worst by default: {worst:.2f} photos ({verdict} the limit of {MOST_RATIO:g})")


def hostile_rows(side: int, boxes: str) -> NDArray[np.float32]:
    """(A, 4 + 1 + C) float32 logits; every row exceeds a threshold of 0."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(contract(side).num_cells(side, side), 5 + CLASSES))
    rows[:, 2:4] = rng.uniform(*LOG_SIZES[boxes], size=(len(rows), 2))
    return rows.astype(np.float32)


def contract(side: int) -> ModelContract:
    """The contract of a square model with 80 classes."""
    spec = InputSpec(name="images", height=side, width=side)
    names = tuple(f"class {number}" for number in range(CLASSES))
    return ModelContract(name="hostile", version="1", input=spec, class_names=names)


def finding(
    rows: NDArray[np.float32], side: int, options: DetectionOptions
) -> Callable[[], object]:
    """A call that does all that the server does with the rows of one image."""
    _, way_back = letterbox(np.zeros((side, side, 3), np.uint8), side, side)
    return lambda: find_objects(rows, way_back, contract(side), options)


def photo() -> bytes:
    """A JPEG with the detail of a photo."""
    rng = np.random.default_rng(2)
    width, height = PHOTO_SIDES
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    grain = rng.normal(scale=8, size=(height, width, 3))
    smooth = Image.fromarray(coarse).resize(PHOTO_SIDES, Image.Resampling.BICUBIC)
    pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=90)
    return buffer.getvalue()


def median_ms(work: Callable[[], object]) -> float:
    """Median CPU time of a call, in milliseconds."""
    costs = []
    for _ in range(TIMES):
        began = time.thread_time_ns()
        work()
        costs.append((time.thread_time_ns() - began) / 1e6)
    return statistics.median(costs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxes", choices=tuple(LOG_SIZES), default="spread")
    return parser.parse_args()


if __name__ == "__main__":
    main()
