"""The parts that all models share: admission, the queue and its threads, threads that draw."""

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import cv2

from service.errors import ServiceError
from service.imaging.draw import DrawingPool
from service.imaging.memory import MemoryShortError
from service.pipeline.base import Pipeline
from service.pipeline.jobs import Job
from service.pipeline.stages import DetectedImage, ImageTask
from service.queue.admission import Admission, Permit, Upload
from service.queue.batcher import Batcher
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

    async def detect(self, permit: Permit, job: Job[ImageTask], deadline: float) -> DetectedImage:
        """Take one image through the pipeline.

        An image for which there is no memory waits for it here, where it keeps no thread from the
        others, and holds that memory before a thread decodes it.

        Args:
            permit: The image's.
            job: The image, and the model that is to look at it.
            deadline: `time.monotonic()` until which the result is of use.

        Raises:
            ServiceError: The image cannot be used, there is no room, or the model failed.
        """
        try:
            return await self.run.detect(permit, job, deadline)
        except MemoryShortError as short:
            wait = partial(short.memory.wait, short.count, deadline)
            # The error and the frames in its traceback refer to each other, and these to what is
            # held below: it would stay held until the garbage collector comes by.
            short.__traceback__ = None
        permit.hold()
        held = await self._waiting_for_memory.submit(wait)
        task = replace(job.work, memory=held)
        found = await self.run.detect(permit, Job(job.model, task), deadline)
        if found.photo is None:
            held.release()
        return found

    def drain(self) -> None:
        """Be unready from now on. Safe in a signal handler."""
        self.draining = True

    def refuse_new(self) -> None:
        """Let no request or image in any more; those that are in are finished."""
        self.drain()
        self._admission.close()

    def arrive(self) -> Upload:
        """Let a request in before its body is read, if there is room for an image of it.

        Raises:
            QueueFullError: There is no room.
            DrainingError: The server is shutting down.
        """
        return self._admission.admit_request()

    def refusal(self) -> ServiceError | None:
        """Why `arrive` would refuse a request now, or None."""
        return self._admission.refusal()

    def admit_image(self) -> Permit:
        """A permit for one image, at once or not at all.

        Raises:
            QueueFullError: There is no room.
            DrainingError: The server is shutting down.
        """
        return self._admission.admit_image()

    @property
    def is_idle(self) -> bool:
        """Whether no image waits, so that another costs no request its turn."""
        return not self._admission.held
