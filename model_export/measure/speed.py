"""The speed of an exported model on this machine."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from model_export.measure.local_detector import load_onnx

# Runs that are timed, unless they take longer than this many seconds.
RUNS: Final = 30
LIMIT_S: Final = 5.0
WARM_UP: Final = 3


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a model runs, one image at a time.

    Attributes:
        seconds: Median duration of a run of the network alone.
        fastest: Shortest duration.
        runs: How many were timed.
        height: Height of the input in pixels.
        width: Its width.
    """

    seconds: float
    fastest: float
    runs: int
    height: int
    width: int

    @property
    def line(self) -> str:
        """One line for a person."""
        return (
            f"{self.seconds * 1000:.1f} ms per image of {self.width} x {self.height} "
            f"({1 / self.seconds:.0f} per second; fastest {self.fastest * 1000:.1f} ms): ONNX "
            f"Runtime on this machine's CPU, the network alone, median of {self.runs} runs"
        )


def model_speed(path: Path) -> Speed:
    """Time an ONNX file at its usual size, with ONNX Runtime on the CPU.

    Raises:
        ModelExportError: The file cannot be loaded, or carries no contract.
    """
    network, contract = load_onnx(path)
    spec = contract.input
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, spec.height, spec.width, 3), dtype=np.uint8)
    for _ in range(WARM_UP):
        network(image)
    durations: list[float] = []
    while len(durations) < RUNS and (not durations or sum(durations) < LIMIT_S):
        started = time.perf_counter()
        network(image)
        durations.append(time.perf_counter() - started)
    return Speed(
        statistics.median(durations), min(durations), len(durations), spec.height, spec.width
    )
