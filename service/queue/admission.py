"""Admission: which requests are let in, and how many images may wait for the engine."""

import asyncio
import math
import time
from typing import Final, Self

from service.errors import DrainingError, QueueFullError, ServiceError
from service.observe.metrics import Metrics

# A body that takes longer than this comes from a slow sender, for whom no room is kept.
UPLOAD_GRACE_S: Final = 0.25
# Weight of the newest batch in the moving average of the pace.
PACE_WEIGHT: Final = 0.1


class Permit:
    """The right of one image to wait for the engine, valid until its batch starts.

    An image gets its permit before it is decoded, so that a crowd is refused before it costs
    anything. Leaving the context releases the permit if it is still held.

    Attributes:
        is_held: Whether the permit is held.
    """

    def __init__(self, admission: "Admission") -> None:
        self._admission = admission
        self.is_held = False
        self.hold()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def hold(self) -> None:
        """Hold the permit, again if need be: an image that goes back to wait was let in already."""
        if not self.is_held:
            self.is_held = True
            self._admission.taken()

    def release(self) -> None:
        """Make room for another image; a second call does nothing."""
        if self.is_held:
            self.is_held = False
            self._admission.released()


class Upload:
    """A request whose body is read within this context; room for one image is kept meanwhile.

    After `UPLOAD_GRACE_S` the room is no longer kept.
    """

    def __init__(self, uploads: "dict[Upload, float]") -> None:
        self._uploads = uploads

    def __enter__(self) -> Self:
        self._uploads[self] = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._uploads.pop(self, None)


class Admission:
    """Lets requests and images in while there is room. Everything here happens on the event loop.

    Args:
        capacity: Permits that can be held at once.
        metrics: Where to count.

    Attributes:
        capacity: Permits that can be held at once.
        held: Permits that are held now.
        closed: Whether nothing is let in any more, because the server is shutting down.
    """

    def __init__(self, capacity: int, metrics: Metrics) -> None:
        self.capacity = capacity
        self._metrics = metrics
        self._uploads: dict[Upload, float] = {}
        self._seconds_per_image = 0.0
        self.held = 0
        self.closed = False
        self._drained = asyncio.Event()

    def close(self) -> None:
        """Refuse every request and every image from now on."""
        self.closed = True
        self._note_drained()

    async def drained(self) -> None:
        """Wait until admission is closed and no permit is held."""
        await self._drained.wait()

    def refusal(self) -> ServiceError | None:
        """Why a new request would be refused now, or None."""
        return None if self._has_room() else self._error()

    def admit_request(self) -> Upload:
        """Let a new request in; the caller enters the result while it reads the body.

        Each body that is being read keeps room for one image, so that the server reads no more
        bodies at once than it has room for. A slow sender keeps that room for a moment only.

        Raises:
            QueueFullError: All room is taken, or kept for bodies that are being read.
            DrainingError: The server is shutting down.
        """
        if not self._has_room():
            raise self._error()
        return Upload(self._uploads)

    def admit_image(self) -> Permit:
        """Give an image its permit, at once or not at all.

        Raises:
            QueueFullError: All permits are held.
            DrainingError: Admission is closed.
        """
        if self.closed or self.held >= self.capacity:
            raise self._error()
        return Permit(self)

    def taken(self) -> None:
        """Note that a permit is held; called by the permit."""
        self.held += 1
        self._metrics.queue_images.set(self.held)

    def released(self) -> None:
        """Note that a permit is no longer held; called by the permit."""
        self.held -= 1
        self._metrics.queue_images.set(self.held)
        self._note_drained()

    def note_pace(self, seconds_per_image: float) -> None:
        """Learn how fast the queue moves while all slots are busy."""
        known = self._seconds_per_image or seconds_per_image
        self._seconds_per_image = known + PACE_WEIGHT * (seconds_per_image - known)

    def _note_drained(self) -> None:
        if self.closed and not self.held:
            self._drained.set()

    def _has_room(self) -> bool:
        slow_since = time.monotonic() - UPLOAD_GRACE_S
        slow = [upload for upload, began in self._uploads.items() if began < slow_since]
        for upload in slow:
            del self._uploads[upload]
        return not self.closed and self.held + len(self._uploads) < self.capacity

    def _error(self) -> ServiceError:
        if self.closed:
            return DrainingError("the server is shutting down", retry_after_s=1)
        return QueueFullError(
            f"all {self.capacity} places in the queue are taken",
            retry_after_s=max(1, math.ceil(self.held * self._seconds_per_image)),
        )
