"""ONNX Runtime on the CPU."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.core.contract import ModelContract
from service.core.input_tensor import stack_images, takes_pixels
from service.engine.base import (
    CPU,
    ONE_THREAD,
    CpuShares,
    Pixels,
    Precision,
    RawRows,
    check_rows,
    filled_up,
    grey,
)
from service.engine.onnx_runtime import ONNX_DTYPES, contract_of, import_runtime, open_session
from service.errors import StartupError


class OnnxCpuEngine:
    """A model file in ONNX Runtime, on the CPU.

    Args:
        path: An ONNX file with a contract.
        shares: How calls share the CPUs.
        max_batch: Most images of one call, unless the graph's batch is fixed (default: 1, for an
            image of a batch takes longer than one alone).
        wanted_provider: The provider that the device setting aims at.
    """

    on_cpu = True
    provider = CPU
    precision: Precision = "f32"

    def __init__(
        self,
        path: Path,
        *,
        shares: CpuShares = ONE_THREAD,
        max_batch: int | None = None,
        wanted_provider: str = CPU,
    ) -> None:
        self._path = path
        self._shares = shares
        self._most_images = max_batch
        self.wanted_provider = wanted_provider

    def load(self) -> None:
        """Open a session for each span, and check the graph against its contract.

        Raises:
            StartupError: The runtime or the file is missing, or the contract is missing or wrong.
        """
        runtime = import_runtime()
        self._sessions = {
            span: open_session(runtime, self._path, [(CPU, {})], span * self._shares.threads)
            for span in self._shares.spans
        }
        self._contract = contract_of(self._sessions[1], self._path)
        self._rows_shape = lru_cache(maxsize=256)(self._contract.rows_shape)
        self._takes_pixels = takes_pixels(self._contract.input)
        output = self._sessions[1].get_outputs()[0]
        self._output: str = output.name
        self._output_dtype = np.dtype(ONNX_DTYPES[output.type])

    def warm(self, size: tuple[int, int]) -> None:
        """Run each batch width once with inputs of this (height, width) in pixels.

        Raises:
            StartupError: The model cannot run, or its output is not the promised one.
        """
        for batch in sorted({1, self.max_batch} if self._contract.input.batch is None else {1}):
            images = grey(self._contract, size, self._contract.input.batch or batch)
            tensor = {self._contract.input.name: stack_images([*images], self._contract.input)}
            try:
                # Bound outputs have the promised shape; these rows have the graph's own.
                (raw,) = self._sessions[1].run(None, tensor)
            except Exception as error:  # ONNX Runtime's errors share no base of their own
                raise StartupError(f"{self._path}: the model cannot run: {error}") from error
            check_rows(raw, images, self._contract, str(self._path))

    def cold_sizes(self, sizes: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:  # noqa: ARG002
        """None: on the CPU the first call of a size takes 1 to 4 % longer than later ones."""
        return []

    @property
    def contract(self) -> ModelContract:
        """The model's contract."""
        return self._contract

    @property
    def threads(self) -> int:
        """CPU threads of one call of span 1."""
        return self._shares.threads

    @property
    def max_batch(self) -> int:
        """Most images of one call."""
        return self._contract.input.batch or self._most_images or 1

    @property
    def spans(self) -> Sequence[int]:
        """How many instances' shares of the CPU one call can use, ascending from 1."""
        return tuple(self._shares.spans)

    def infer(self, images: Sequence[Pixels], span: int = 1) -> RawRows:
        """Run N (H, W, 3) uint8 BGR network inputs; gives (N, A, 4 + 1 + C) raw rows."""
        count = len(images)
        fixed = self._contract.input.batch or count
        filled = images if count == fixed else filled_up(images, fixed)
        if fixed == 1 and self._takes_pixels:
            tensor: NDArray[np.generic] = images[0][np.newaxis]
        else:
            tensor = stack_images(filled, self._contract.input)
        session = self._sessions[span]
        binding = session.io_binding()
        binding.bind_cpu_input(self._contract.input.name, tensor)
        # The runtime writes the rows where they stay, which saves a copy.
        raw = np.empty(self._rows_shape(fixed, *images[0].shape[:2]), self._output_dtype)
        binding.bind_output(self._output, "cpu", 0, raw.dtype, raw.shape, raw.ctypes.data)
        session.run_with_iobinding(binding)
        return raw[:count]
