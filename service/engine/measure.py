"""`python -m service.engine.measure MODEL ...`: which engine runs a model quicker on this CPU.

It runs as a process of its own, so that the engine that is not taken leaves no memory behind, and a
runtime that crashes on this CPU takes nothing with it. It prints one line of JSON.
"""

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

import numpy as np
from numpy.typing import NDArray

from service.core.contract import ModelContract
from service.core.decode import anchor_grid, decode_boxes
from service.core.input_tensor import stack_images
from service.core.letterbox import LetterboxMode, likely_sizes
from service.engine.base import CpuShares, Pixels, Precision, RawRows
from service.engine.onnx_cpu import OnnxCpuEngine
from service.engine.openvino.model import OpenVinoModel
from service.errors import StartupError

ROUNDS: Final = range(3, 21)
# A larger input is measured on a smaller one of its shape, where the model takes any size.
MOST_PIXELS: Final = 416 * 416
# Cells that may hold an object; boxes of others are noise.
LEAST_OBJECTNESS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Measured:
    """One image, run in turns by both engines.

    Attributes:
        onnxruntime_ms: ONNX Runtime's shortest CPU time in ms.
        openvino_ms: OpenVINO's shortest CPU time in ms.
        precision: The number format that OpenVINO multiplied in.
        score_difference: Largest difference of a score: an objectness, or the product of an
            objectness and a class probability.
        box_difference: Largest difference of a box's corner, as a share of the box's longer side,
            among cells that may hold an object.
    """

    onnxruntime_ms: float
    openvino_ms: float
    precision: Precision
    score_difference: float
    box_difference: float


def measure(path: Path, mode: LetterboxMode | None, threads: int, seconds: float) -> Measured:
    """Run one image of a likely size in turns by ONNX Runtime and OpenVINO.

    Args:
        path: An ONNX file with a contract.
        mode: How images are fitted (None: rectangles where the model takes any size).
        threads: CPU threads of a call.
        seconds: Time to stop at, once each engine has run three times.

    Raises:
        StartupError: One of them is not installed, or cannot run the model.
    """
    onnx = OnnxCpuEngine(path, shares=CpuShares(threads=threads))
    onnx.load()
    contract = onnx.contract
    height, width = size_to_measure(contract, mode)
    narrow = OpenVinoModel(path).compile((height, width), streams=1, threads=threads)
    images = np.repeat(scene(height, width)[np.newaxis], contract.input.batch or 1, axis=0)
    tensor = stack_images([*images], contract.input)
    shape = contract.rows_shape(*images.shape[:3])
    ways: list[Callable[[], RawRows]] = [
        lambda: onnx.infer([*images]),
        lambda: narrow.run(tensor, shape),
    ]
    rows = [way()[0].astype(np.float32) for way in ways]
    times = _in_turns(ways, seconds)
    onnx_ms, openvino_ms = (round(min(each) * 1000, 3) for each in times)
    scores, boxes = differences(rows[0], rows[1], contract, (height, width))
    return Measured(onnx_ms, openvino_ms, narrow.precision, scores, boxes)


def size_to_measure(contract: ModelContract, mode: LetterboxMode | None) -> tuple[int, int]:
    """The network (height, width) in pixels of a 4:3 photo, or of its like with fewer pixels."""
    rectangles = mode == "rectangle" or (mode is None and contract.input.dynamic_size)
    sizes = likely_sizes(contract, "rectangle" if rectangles else "square")
    height, width = sizes[min(1, len(sizes) - 1)]
    if not contract.input.dynamic_size or height * width <= MOST_PIXELS:
        return height, width
    step, shrink = max(contract.strides), math.sqrt(MOST_PIXELS / (height * width))
    height, width = (int(side * shrink) // step * step for side in (height, width))
    return max(contract.least_side, height), max(contract.least_side, width)


def _in_turns(ways: list[Callable[[], RawRows]], seconds: float) -> list[list[float]]:
    """CPU seconds of each call of each way; other programs change them less than wall time."""
    times: list[list[float]] = [[] for _ in ways]
    end = time.perf_counter() + seconds
    for done in range(ROUNDS.stop):
        if done >= ROUNDS.start and time.perf_counter() > end:
            break
        for way, taken in zip(ways, times, strict=True):
            started = time.process_time()
            way()
            taken.append(time.process_time() - started)
    return times


def scene(height: int, width: int) -> Pixels:
    """A drawn (H, W, 3) uint8 picture with edges, areas and noise, as photos have."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    picture = np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=2) / 2 + 40
    for _ in range(24):
        y, x = random.integers(0, height), random.integers(0, width)
        side = random.integers(8, max(9, min(height, width) // 2), 2)
        picture[y : y + side[0], x : x + side[1]] = random.integers(0, 256, 3)
    picture += random.normal(0, 6, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def differences(
    ours: NDArray[np.float32],
    theirs: NDArray[np.float32],
    contract: ModelContract,
    size: tuple[int, int],
) -> tuple[float, float]:
    """How far two engines' (A, 4 + 1 + C) raw rows of one (height, width) input lie apart.

    Returns:
        The largest difference of a score, and of a box's corner as a share of its longer side;
        infinite where rows are not finite.
    """
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return float("inf"), float("inf")
    scores = [_scores(rows[:, 4:], contract) for rows in (ours, theirs)]
    held = np.maximum(scores[0][:, 0], scores[1][:, 0]) > LEAST_OBJECTNESS
    apart = float(np.abs(scores[0] - scores[1]).max())
    if not held.any():
        return apart, 0.0
    grid = anchor_grid(*size, contract.strides)
    boxes = [
        decode_boxes(rows[held, :4], grid.cells_ij[held], grid.strides[held], contract.box_coding)
        for rows in (ours, theirs)
    ]
    sides = (boxes[0][:, 2:] - boxes[0][:, :2]).max(axis=1, keepdims=True)
    return apart, float((np.abs(boxes[0] - boxes[1]) / sides).max())


def _scores(values: NDArray[np.float32], contract: ModelContract) -> NDArray[np.float32]:
    """(A, 1 + C) objectnesses and joint scores: what the class of background is shows nowhere."""
    if contract.score_activation != "probabilities":
        values = np.asarray(1 / (1 + np.exp(-np.clip(values, -80, 80))), np.float32)
    return np.concatenate([values[:, :1], values[:, :1] * values[:, 1:]], axis=1)


def main() -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m service.engine.measure", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--letterbox", choices=get_args(LetterboxMode))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.3)
    asked = parser.parse_args()
    try:
        measured = measure(asked.model, asked.letterbox, asked.threads, asked.seconds)
    except StartupError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(json.dumps(dataclasses.asdict(measured)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
