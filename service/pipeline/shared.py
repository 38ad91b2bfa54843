"""The parts that all models share: admission, the queue and its threads, threads that draw."""

import asyncio
from functools import partial
from typing import Any

import cv2

from service.imaging.draw import DrawingPool
from service.imaging.memory import HeldMemory, ImageMemory
from service.pipeline.base import Pipeline
from service.queue.batcher import Batcher
from service.queue.capacity import Admission
from service.queue.threads import ThreadPool


class SharedPipeline:
    """The one queue of the server, in which the images of every model wait together.

    Args:
        pipeline: From the bytes of an image to its boxes.
        batcher: The pipeline's.
        admission: The batcher's.
        drawing: Draws boxes onto images.

    Attributes:
        run: The pipeline.
        arrive: Lets a request in before its body is read: `Admission.admit_request`.
        refusal: Why `arrive` would refuse a request now, or None.
        admit_image: Gives an image its permit: `Admission.admit_image`.
        drawing: The same.
        draining: Whether the server is about to stop. It is unready then, but serves on.
        suspicion: Set when a model has failed an image: a probe tells whether it would fail any.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        batcher: Batcher[Any, Any],
        admission: Admission,
        drawing: DrawingPool,
    ) -> None:
        self.run = pipeline
        self.arrive = admission.admit_request
        self.refusal = admission.refusal
        self.admit_image = admission.admit_image
        self.drawing = drawing
        self.draining = False
        self.suspicion = asyncio.Event()
        # One thread, so that images get memory in their order.
        self._waiting_for_memory = ThreadPool(1, "memory")
        self._batcher = batcher
        self._admission = admission

    def start(self) -> None:
        """Start all threads; needs a running event loop."""
        # Images run in parallel; threads inside the resizing of one would only get in the way.
        cv2.setNumThreads(1)
        self._batcher.start()
        self.run.start()
        self.drawing.start()
        self._waiting_for_memory.start()

    async def stop(self) -> None:
        """Finish accepted work, then end every task and thread."""
        self.refuse_new()
        await self._batcher.stop()
        self.run.stop()
        self.drawing.stop()
        self._waiting_for_memory.stop()

    def wait_for_memory(
        self, memory: ImageMemory, count: int, deadline: float
    ) -> asyncio.Future[HeldMemory]:
        """Wait until an image's memory is free, where that keeps no thread from other images.

        Args:
            memory: Where it comes from.
            count: The bytes that decoding the image takes.
            deadline: `time.monotonic()` until which they are of use.

        Raises:
            ServiceError: They were not free in time, or never could be.
        """
        return self._waiting_for_memory.submit(partial(memory.wait, count, deadline))

    def drain(self) -> None:
        """Be unready from now on. Safe in a signal handler."""
        self.draining = True

    def refuse_new(self) -> None:
        """Let no request or image in any more; those that are in are finished."""
        self.drain()
        self._admission.close()

    @property
    def is_idle(self) -> bool:
        """Whether no image waits, so that another costs no request its turn."""
        return not self._admission.held
