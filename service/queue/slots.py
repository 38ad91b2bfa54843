"""Engine slots: the room in which batches run, of this process and of others that are idle."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.queue.cpu_sharing import WorkerLoads


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
