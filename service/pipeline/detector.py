"""What the routes ask: to detect in images, to draw, and whether all is well."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

import cv2
import numpy as np
import structlog

from service.core.contract import ModelContract
from service.core.decode import Detections
from service.core.suppress import DetectionOptions
from service.errors import ClientLeftError, DeadlineError, ServiceError
from service.imaging.draw import Artists, Easel, PictureType, draw_detections
from service.observe.metrics import Metrics
from service.pipeline.stages import DetectedImage, ImageSource, Job, StageSeconds
from service.pipeline.ways import Path
from service.queue.admission import Arrival, Place, Places
from service.queue.batcher import Batcher, is_past

FAILURES_UNTIL_UNREADY: Final = 3

log = structlog.get_logger(__name__)


class Detector:
    """Takes images along their path and counts them; all heavy work is on threads.

    Args:
        contract: What the model promises.
        path: From the bytes of an image to its boxes.
        batcher: The path's own.
        places: The batcher's.
        metrics: Where to count.
        artists: Who draw boxes into pictures.
        ready_window_s: For how long one success is a sign of health, in seconds.
    """

    def __init__(
        self,
        contract: ModelContract,
        path: Path,
        batcher: Batcher[Any, Any],
        places: Places,
        metrics: Metrics,
        artists: Artists,
        ready_window_s: float,
    ) -> None:
        self.contract = contract
        self._path = path
        self._batcher = batcher
        self._places = places
        self._metrics = metrics
        self._ready_window_s = ready_window_s
        spec = contract.input
        grey = np.full((spec.height, spec.width, 3), spec.pad_value, np.uint8)
        content = cv2.imencode(".bmp", grey)[1].tobytes()
        self._grey = Job(ImageSource(content), DetectionOptions())
        self._artists = artists
        self._heartbeat: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the batcher, and see one inference through before anyone calls this ready."""
        # The images are the parallel work here; threads inside one resize only get in the way.
        cv2.setNumThreads(1)
        self._batcher.start()
        await self._probe()
        self._heartbeat = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """Finish accepted work, then end every task and thread."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        await self._batcher.stop()
        self._path.stop()
        self._artists.stop()

    def refuse_new(self) -> None:
        """Begin to drain: be unready, and take no new work. Safe in a signal handler."""
        self._places.refuse_new()

    def arrive(self) -> Arrival:
        """Let a request in before its body is read, if there is any place for its images.

        Raises:
            QueueFullError: Every place is taken.
            DrainingError: The server is shutting down.
        """
        return self._places.arrive()

    def refusal(self) -> ServiceError | None:
        """Why `arrive` lets nobody in now, or None."""
        return self._places.refusal()

    def unready_reason(self) -> str | None:
        """Why no new work should be sent here, or None."""
        if self._places.draining:
            return "the server is shutting down"
        if self._batcher.failures_in_a_row >= FAILURES_UNTIL_UNREADY:
            return f"the last {self._batcher.failures_in_a_row} batches failed"
        window, last = self._ready_window_s, self._batcher.last_success
        if last is None or time.monotonic() - last > window:
            return f"no inference has succeeded within the last {window:g} s"
        return None

    async def detect_all(
        self,
        sources: Sequence[ImageSource],
        options: DetectionOptions,
        deadline: float,
    ) -> list[DetectedImage | ServiceError]:
        """Detect in several images at once; one bad image harms no other.

        Args:
            sources: The images.
            options: Thresholds, suppression and classes.
            deadline: `time.monotonic()` after which a waiting image is dropped.

        Returns:
            For each image, in order, what was found or why nothing was.
        """
        jobs = [Job(source, options) for source in sources]
        with ExitStack() as held:
            # All at once, before anyone else can take the room that was kept while they were read.
            places = [self._reserve(held) for _ in jobs]
            if len(jobs) == 1:
                return [await self._detect(jobs[0], places[0], deadline)]
            return await asyncio.gather(
                *(self._detect(*each, deadline) for each in zip(jobs, places, strict=True))
            )

    async def detect_drawn(
        self, source: ImageSource, options: DetectionOptions, deadline: float, kind: PictureType
    ) -> tuple[DetectedImage, bytes]:
        """Detect in an image, and draw its boxes onto it.

        Returns:
            What was found, and the bytes of a picture file.

        Raises:
            ServiceError: The image cannot be used, there is no room, or the model failed.
        """
        with ExitStack() as held:
            place = self._reserve(held)
            easel = held.enter_context(Easel(self._artists))
            job = Job(source, options, keep_pixels=True)
            found = await self._detect(job, place, deadline, easel.wait)
            if isinstance(found, ServiceError):
                raise found
            if found.pixels is None:
                raise ValueError("the pixels were not kept")
            names = self.contract.class_names
            work = partial(draw_detections, found.pixels, found.detections, names, kind)
            return found, await easel.draw(work)

    def _reserve(self, held: ExitStack) -> Place | ServiceError:
        """A place until the context ends at the latest, or why there is none."""
        try:
            return held.enter_context(self._places.reserve())
        except ServiceError as error:
            return error

    async def _detect(
        self,
        job: Job,
        place: Place | ServiceError,
        deadline: float,
        ready: Callable[[], Awaitable[None]] | None = None,
    ) -> DetectedImage | ServiceError:
        """What is found, or why nothing is; `ready` is what else the image has to wait for."""
        if isinstance(place, ServiceError):
            self._metrics.images.labels(place.slug).inc()
            return place
        result: DetectedImage | ServiceError
        try:
            with place:
                if ready is not None:
                    await ready()
                result = await self._path.detect(place, job, deadline)
            self._count(result.detections, result.seconds)
            outcome = "ok"
        except asyncio.CancelledError:
            outcome = DeadlineError.slug if is_past(deadline) else ClientLeftError.slug
            raise
        except ServiceError as error:
            outcome, result = error.slug, error
        except Exception:
            # A bug, or a decoder's; the other images of the request have nothing to do with it.
            log.exception("image failed")
            outcome, result = ServiceError.slug, ServiceError("an unexpected error")
        finally:
            self._metrics.images.labels(outcome).inc()
        return result

    def _count(self, detections: Detections, seconds: StageSeconds) -> None:
        for stage in ("decode", "queue", "inference", "postprocess"):
            self._metrics.stage_duration.labels(stage).observe(getattr(seconds, stage))
        for class_id, boxes in Counter(detections.class_ids.tolist()).items():
            self._metrics.detections.labels(self.contract.class_names[class_id]).inc(boxes)

    async def _beat(self) -> None:
        """Keep an idle or failing server's readiness true to life by small real inferences."""
        period = self._ready_window_s / 3
        while True:
            await asyncio.sleep(period)
            last = self._batcher.last_success
            stale = last is None or time.monotonic() - last > period
            if stale or self._batcher.failures_in_a_row:
                await self._probe()

    async def _probe(self) -> None:
        deadline = time.monotonic() + self._ready_window_s
        try:
            # From an image's bytes on, so that a server whose decoders hang is not ready.
            with self._places.reserve() as place:
                await self._path.detect(place, self._grey, deadline)
        except ServiceError as error:
            log.warning("probe failed", detail=error.detail)
        except Exception:
            log.exception("probe failed")
