"""Whether the server should get new work: a probe tells, where no request has done so lately."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from service.pipeline.detector import Detector
from service.pipeline.shared import SharedPipeline

# Pause after a probe, however often the model fails.
PROBE_PAUSE_S: Final = 1.0


class Health:
    """Watches the model that answers requests which name none.

    Args:
        pipeline: The pipeline of all models.
        watched: Gives the detector to watch, which may change.
        ready_window_s: Seconds for which one success counts as a sign of health.

    Attributes:
        failed_probes: How many probes have failed since one succeeded.
    """

    def __init__(
        self, pipeline: SharedPipeline, watched: Callable[[], Detector], ready_window_s: float
    ) -> None:
        self._pipeline = pipeline
        self._watched = watched
        self._ready_window_s = ready_window_s
        self._heartbeat: asyncio.Task[None] | None = None
        self.failed_probes = 0

    async def start(self) -> None:
        """Try one inference before anyone can call this ready, and watch from then on."""
        await self._probe()
        self._heartbeat = asyncio.create_task(self._beat())

    def stop(self) -> None:
        """Watch no more."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()

    def unready_reason(self) -> str | None:
        """Why this server should get no new work, or None."""
        if self._pipeline.draining:
            return "the server is shutting down"
        detector, window = self._watched(), self._ready_window_s
        reason = detector.broken_reason()
        if reason is not None:
            return reason
        last = detector.last_success
        if last is None or time.monotonic() - last > window:
            return f"no inference has succeeded within the last {window:g} s"
        return None

    async def _beat(self) -> None:
        """Probe while no request shows that the model works, or one suggests that it does not."""
        period, suspicion = self._ready_window_s / 3, self._pipeline.suspicion
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(period):
                    await suspicion.wait()
            is_suspect = suspicion.is_set()
            suspicion.clear()
            if is_suspect or self._is_in_doubt(period):
                await self._probe()
                await asyncio.sleep(min(period, PROBE_PAUSE_S))

    def _is_in_doubt(self, period: float) -> bool:
        # No local of the task above: it would keep a model that is replaced meanwhile.
        detector = self._watched()
        last = detector.last_success
        return last is None or time.monotonic() - last > period or detector.is_failing

    async def _probe(self) -> None:
        deadline = time.monotonic() + self._ready_window_s
        if await self._watched().probe(deadline):
            self.failed_probes = 0
        else:
            # A full queue says nothing while images succeed; where none does, no probe got through.
            self.failed_probes += not self._pipeline.draining
