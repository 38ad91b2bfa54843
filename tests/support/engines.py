"""Engines without a model, whose batches a test can inspect and hold."""

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.core.contract import InputSpec, ModelContract
from service.engine.base import CPU, Precision

CONTRACT = ModelContract(
    name="fake",
    version="1",
    input=InputSpec(name="images", height=64, width=64, dynamic_size=True),
    class_names=("cat", "dog", "owl"),
)
LOGIT_SURE = 8.0
LOGIT_NEVER = -12.0


class FakeEngine:
    """Finds one box in every image, in cell (1, 1) of stride 8; the mean pixel sets its width.

    Clear `gate` to hold every batch once it has started; `batches` lists the shapes that ran,
    and `ran_with` the span of engine slots that each used.
    """

    provider = "FakeExecutionProvider"
    wanted_provider = "FakeExecutionProvider"
    on_cpu = False
    precision: Precision = "f32"
    threads = 1
    spans: tuple[int, ...] = (1,)

    def __init__(self, contract: ModelContract = CONTRACT, max_batch: int = 8) -> None:
        self.contract = contract
        self.max_batch = max_batch
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Semaphore(0)
        self.batches: list[tuple[int, ...]] = []
        self.ran_with: list[int] = []
        self.error: Exception | None = None

    def infer(self, images: Sequence[NDArray[np.uint8]], span: int = 1) -> NDArray[np.floating]:
        self.batches.append((len(images), *images[0].shape))
        self.ran_with.append(span)
        self.started.release()
        if not self.gate.wait(timeout=30):
            raise TimeoutError("the test never opened the gate")
        if self.error is not None:
            raise self.error
        return np.stack([self.rows_of(image) for image in images])

    def rows_of(self, image: NDArray[np.uint8]) -> NDArray[np.floating]:
        """(A, 4 + 1 + C) raw rows of one (H, W, 3) image."""
        height, width = image.shape[:2]
        cells = self.contract.num_cells(height, width)
        rows = np.full((cells, self.contract.output_channels), LOGIT_NEVER, dtype=np.float32)
        row = width // 8 + 1
        rows[row, :4] = (0.5, 0.5, np.log(1 + image.mean() / 255), 0.0)
        rows[row, 4] = LOGIT_SURE
        rows[row, 5 + 1] = LOGIT_SURE
        return rows


class CpuEngine(FakeEngine):
    """The same as on a CPU, where one thread takes an image from its bytes to its boxes."""

    provider = wanted_provider = CPU
    on_cpu = True

    def __init__(self, contract: ModelContract = CONTRACT) -> None:
        super().__init__(contract, max_batch=1)
