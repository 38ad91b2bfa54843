"""OpenVINO on the CPU: x86-64 of any maker, and arm64.

Two kinds of compiled models share the work. The *open* model takes every input size, and gives a
call all CPUs: it loads in half a second, and answers lone clients. A *narrow* model takes one size
and one call at a time, which it runs on the caller's own thread: under load it is 10 to 30 %
faster, and it costs 15 to 30 MB. The sizes that are called most get a narrow model, up to a set
number, and as many copies of it as calls need.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from service.core.contract import ModelContract
from service.core.input_tensor import stack_images
from service.engine.base import (
    ONE_THREAD,
    OPENVINO,
    CpuShares,
    Pixels,
    Precision,
    RawRows,
    check_rows,
    filled_up,
    grey,
)
from service.engine.openvino.model import CompiledModel, OpenVinoModel
from service.engine.openvino.narrow_sizes import NarrowSizes, Size
from service.errors import StartupError
from service.heap import give_back_free_heap

# The longer side over the shorter one, up to which a size is warmed before a client sends it.
LONGEST_PHOTO: Final = 2


class OpenVinoEngine:
    """A model file in OpenVINO, on the CPU.

    Args:
        path: An ONNX file with a contract.
        shares: How calls share the CPUs.
        max_batch: Most images of one call, unless the graph's batch is fixed (default: 1).
        narrow_sizes: Most input sizes that are compiled for themselves.
    """

    on_cpu = True
    provider = OPENVINO
    wanted_provider = OPENVINO

    def __init__(
        self,
        path: Path,
        *,
        shares: CpuShares = ONE_THREAD,
        max_batch: int | None = None,
        narrow_sizes: int = 0,
    ) -> None:
        self._path = path
        self._shares = shares
        self._most_images = max_batch
        self._narrow_sizes = narrow_sizes

    def load(self) -> None:
        """Compile the open model, and check the graph against its contract.

        Raises:
            StartupError: OpenVINO or the file is missing, or the contract is missing or wrong.
        """
        self._model = OpenVinoModel(self._path)
        widest = self._shares.spans[-1]
        self._open = self._model.compile(
            None,
            streams=self._shares.instances if widest == 1 else 1,
            threads=widest * self._shares.threads,
        )
        # A process with others beside it runs more calls than its own share while they are idle.
        at_once = max(widest, self._shares.instances)
        self._narrow = NarrowSizes(self._narrow_sizes, at_once, self._compile_narrow)

    def _compile_narrow(self, size: Size) -> CompiledModel:
        # With one stream of one thread, OpenVINO computes on the caller's thread. Several streams
        # have threads of their own, and handing a call over costs a tenth of the throughput.
        compiled = self._model.compile(size, streams=1, threads=self._shares.threads)
        compiled.run_unbound(stack_images([*self._grey(size)], self.contract.input))
        give_back_free_heap()
        return compiled

    def _grey(self, size: Size) -> Pixels:
        return grey(self.contract, size, self.contract.input.batch or 1)

    def warm(self, size: Size) -> None:
        """Run the open model once with inputs of this (height, width) in pixels.

        Raises:
            StartupError: The model cannot run, or its output is not the promised one.
        """
        for count in sorted({self.contract.input.batch or 1, self.max_batch}):
            images = grey(self.contract, size, count)
            try:
                raw = self._open.run_unbound(stack_images([*images], self.contract.input))
            except RuntimeError as error:
                raise StartupError(f"{self._path}: the model cannot run: {error}") from error
            check_rows(raw, images, self.contract, str(self._path))

    def cold_sizes(self, sizes: Sequence[Size]) -> Sequence[Size]:
        """Those of photos: the first call of a size makes its kernels, 0.1 s and 5 MB of them."""
        return [size for size in sizes if max(size) <= LONGEST_PHOTO * min(size)]

    @property
    def contract(self) -> ModelContract:
        """The model's contract."""
        return self._model.contract

    @property
    def precision(self) -> Precision:
        """The number format that OpenVINO says it multiplies in."""
        return self._open.precision

    @property
    def threads(self) -> int:
        """CPU threads of one call of span 1."""
        return self._shares.threads

    @property
    def max_batch(self) -> int:
        """Most images of one call."""
        return self.contract.input.batch or self._most_images or 1

    @property
    def spans(self) -> Sequence[int]:
        """How many instances' shares of the CPU one call can use: one, or all."""
        return sorted({1, self._shares.spans[-1]})

    def infer(self, images: Sequence[Pixels], span: int = 1) -> RawRows:
        """Run N (H, W, 3) uint8 BGR network inputs; gives (N, A, 4 + 1 + C) raw rows."""
        count = len(images)
        filled = filled_up(images, self.contract.input.batch or count)
        height, width, _ = images[0].shape
        tensor = stack_images(filled, self.contract.input)
        shape = self.contract.rows_shape(len(filled), height, width)
        narrow, size = None, (height, width)
        if span == 1 and len(filled) == (self.contract.input.batch or 1):
            narrow = self._narrow.take(size)
        if narrow is None:
            return self._open.run(tensor, shape)[:count]
        try:
            return narrow.run(tensor, shape)[:count]
        finally:
            self._narrow.give_back(size, narrow)
