"""A running batcher, in front of an engine that a test can hold."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.core.letterbox import Letterbox
from service.engine.base import ImageRows
from service.observe.metrics import Metrics
from service.pipeline.batched import NetworkRunner
from service.pipeline.jobs import Job
from service.pipeline.stages import PreparedImage
from service.queue.batcher import Batcher
from service.queue.capacity import Admission, EngineSlots, Permit
from service.queue.cpu_sharing import WorkerLoads
from support.engines import FakeEngine
from support.models import runnable

FAR = 60.0


@dataclass(frozen=True, slots=True)
class Rows:
    """The result of an image that went through the queue, and its times in seconds."""

    result: ImageRows
    queue_s: float
    run_s: float


def image(value: int = 0, height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, dtype=np.uint8)


def prepared(tensor: NDArray[np.uint8]) -> PreparedImage:
    height, width, _ = tensor.shape
    return PreparedImage(tensor, 0.0, Letterbox(1.0, height, width, height, width), None)


class Bench:
    """A running batcher, and everything that tests inspect."""

    def __init__(
        self,
        engine: FakeEngine,
        *,
        instances: int = 1,
        loads: WorkerLoads | None = None,
        max_queue_images: int = 64,
        **options: Any,
    ) -> None:
        self.metrics = Metrics()
        self.admission = Admission(max_queue_images, self.metrics)
        slots = EngineSlots(instances, engine.spans, loads)
        self.batcher = Batcher(
            NetworkRunner(), self.metrics, slots=slots, admission=self.admission, **options
        )
        self.engine = engine
        self.model = runnable(engine, self.metrics)

    async def infer(self, tensor: NDArray[np.uint8], seconds: float = FAR) -> Rows:
        with self.admission.admit_image() as permit:
            return await self.run(permit, tensor, seconds)

    async def run(self, permit: Permit, tensor: NDArray[np.uint8], seconds: float = FAR) -> Rows:
        job = Job(self.model, prepared(tensor))
        rows = await self.batcher.run(permit, job, time.monotonic() + seconds)
        return Rows(rows, job.seconds.queue, job.seconds.inference)

    def submit(self, tensor: NDArray[np.uint8], seconds: float = FAR) -> asyncio.Task[Rows]:
        return asyncio.create_task(self.infer(tensor, seconds))

    async def submit_all(self, *tensors: NDArray[np.uint8]) -> list[asyncio.Task[Rows]]:
        tasks = [self.submit(tensor) for tensor in tensors]
        await settle()
        return tasks

    async def engine_started(self) -> None:
        assert await asyncio.to_thread(self.engine.started.acquire, timeout=10)

    async def hold(self) -> asyncio.Task[Rows]:
        """Keep the only slot busy until the gate of the engine opens."""
        self.engine.gate.clear()
        task = self.submit(image())
        await self.engine_started()
        self.engine.batches.clear()
        return task

    def dropped(self, reason: str) -> float:
        return self.metrics.rejections.labels(f"dropped-{reason}")._value.get()


async def settle() -> None:
    """Run the event loop until every task that can run has run."""
    for _ in range(10):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def running(engine: FakeEngine, **options: Any) -> AsyncIterator[Bench]:
    bench = Bench(engine, **options)
    bench.batcher.start()
    try:
        yield bench
    finally:
        engine.gate.set()
        await bench.batcher.stop()


def on_bench(
    test: Callable[[Bench], Awaitable[None]],
    engine: FakeEngine | None = None,
    **options: Any,
) -> None:
    async def main() -> None:
        async with running(engine or FakeEngine(), **options) as bench:
            await test(bench)

    asyncio.run(main())
