"""Capacity: how many images may wait for the engine, and how many batches may run at once."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from service.errors import DrainingError, QueueFullError, ServiceError
from service.observe.metrics import Metrics
from service.queue.cpu_sharing import WorkerLoads

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
        if self._uploads:
            self._forget_slow()
        return not self.closed and self.held + len(self._uploads) < self.capacity

    def _forget_slow(self) -> None:
        """Keep no room any more for bodies that take long."""
        slow_since = time.monotonic() - UPLOAD_GRACE_S
        slow = [upload for upload, began in self._uploads.items() if began < slow_since]
        for upload in slow:
            del self._uploads[upload]

    def _error(self) -> ServiceError:
        if self.closed:
            return DrainingError("the server is shutting down", retry_after_s=1)
        return QueueFullError(
            f"all {self.capacity} places in the queue are taken",
            retry_after_s=max(1, math.ceil(self.held * self._seconds_per_image)),
        )


@dataclass(frozen=True, slots=True)
class SlotLease:
    """The slots that one running batch uses.

    Attributes:
        width: All of them.
        own: Those of this process; the rest are borrowed from processes that left them idle.
    """

    width: int
    own: int


# For a batch that takes over the slot of the one before it.
OWN_SLOT: Final = SlotLease(width=1, own=1)


class EngineSlots:
    """Which slots are free. Everything here happens on the event loop.

    A batch runs in one slot or, on a CPU, as a wide batch in several slots at once, with the CPUs
    of all of them. Processes that share the CPUs have the same number of slots each. Every process
    can always use its own, and borrows those that the others leave idle.

    Args:
        own: Slots of this process.
        widths: Numbers of slots that one batch can use, ascending from 1.
        loads: The processes to borrow from; by default there are none.

    Attributes:
        own: Slots of this process.
        of_others: Slots of all other processes.
        free: Slots of this process that no batch uses.
        wide_leases: Leases of more than one slot that have not been released.
    """

    def __init__(
        self, own: int, widths: Sequence[int] = (1,), loads: WorkerLoads | None = None
    ) -> None:
        self.own = self.free = own
        self.of_others = 0 if loads is None else own * (loads.workers - 1)
        self.wide_leases = 0
        self._widths = widths
        self._loads = loads
        self._borrowed = 0

    def available(self) -> int:
        """Slots that a batch could use now."""
        if self._loads is None:
            return self.free
        idle_elsewhere = self.of_others - self._borrowed - self._loads.busy_elsewhere()
        return self.free + max(0, idle_elsewhere)

    def lease(self, sharers: int) -> SlotLease | None:
        """Take a fair share of the available slots for one batch.

        Args:
            sharers: Images that the available slots are to be enough for, the batch counting as
                one.

        Returns:
            At least one slot, own ones first, or None if no slot is available.
        """
        available = self.available()
        if available < 1:
            return None
        width = max(width for width in self._widths if width <= max(1, available // sharers))
        lease = SlotLease(width, own=min(width, self.free))
        self._use(lease, 1)
        return lease

    def release(self, lease: SlotLease) -> None:
        """Give the slots back."""
        self._use(lease, -1)

    def _use(self, lease: SlotLease, sign: int) -> None:
        """Count a lease that begins (1) or ends (-1), and tell the other processes."""
        self.free -= sign * lease.own
        self._borrowed += sign * (lease.width - lease.own)
        self.wide_leases += sign * (lease.width > 1)
        if self._loads is not None:
            self._loads.tell_busy(self.own - self.free + self._borrowed)
