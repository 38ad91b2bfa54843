"""Choosing, on the device that holds a model's output, the rows worth copying to the host.

A batch of 32 of YOLOX-s at 640 gives 91 MB of rows, nearly all of them background. Detection needs
those whose objectness reaches a threshold, and they are nearly always among the best thousand,
which are 11 MB.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from service.engine.base import ImageRows
from service.engine.onnx_runtime import Providers, open_session

# `model_export.graphs.candidate_rows` wrote the files.
GRAPHS: Final = Path(__file__).parent / "graphs"
# A model with fewer rows than this many times the chosen ones has them all copied.
LEAST_SAVING: Final = 2
# A batch of 32 at 640 with 80 classes takes a third of it.
MEMORY_MB: Final = 64

Take = Callable[[tuple[int, ...], DTypeLike], NDArray[Any]]


class CandidateRows:
    """Chooses the rows of each image whose objectness is highest.

    Args:
        runtime: ONNX Runtime.
        providers: Where to run, as `choose_providers` gives them.
        dtype: The element type of the rows.
        count: K, how many rows of an image are chosen.
    """

    def __init__(
        self, runtime: ModuleType, providers: Providers, dtype: np.dtype[Any], count: int
    ) -> None:
        graph = GRAPHS / f"candidate_rows_{dtype.name}.onnx"
        self._session = open_session(runtime, graph, providers, 1)
        self._dtype = dtype
        self._count = count

    def choose(self, rows: Any, take: Take) -> list[ImageRows]:  # noqa: ANN401 - ONNX Runtime's
        """Run on rows that lie on the device.

        Args:
            rows: An `OrtValue` of (N, A, 4 + 1 + C), with at least K rows.
            take: Gives memory of the host, by shape and dtype.

        Returns:
            For each of the N images its K rows, by ascending cell.
        """
        images, _, channels = rows.shape()
        raw = take((images, self._count, channels), self._dtype)
        cells = take((images, self._count), np.int64)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("rows", rows)
        binding.bind_cpu_input("count", np.array([self._count], np.int64))
        for name, memory in (("raw", raw), ("cells", cells)):
            binding.bind_output(name, "cpu", 0, memory.dtype, memory.shape, memory.ctypes.data)
        self._session.run_with_iobinding(binding)
        return [ImageRows(*image) for image in zip(raw, cells, strict=True)]


def saves_much(count: int, cells: int) -> bool:
    """Whether choosing this many rows leaves out most of those of all grid cells."""
    return cells >= LEAST_SAVING * count


def are_enough(chosen: Sequence[ImageRows], thresholds: Sequence[float]) -> bool:
    """Whether no image has a row beside the chosen ones whose objectness reaches its threshold.

    The chosen ones are the best: where one of them falls short, so do all others.
    """
    return not any(
        (rows.raw[:, 4] >= threshold).all()
        for rows, threshold in zip(chosen, thresholds, strict=True)
    )
