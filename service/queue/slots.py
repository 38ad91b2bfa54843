"""Engine instances that batches run on: a process's own, and what other processes leave idle."""

from dataclasses import dataclass

from service.queue.cpu_sharing import Team


@dataclass(frozen=True, slots=True)
class Claim:
    """The instances that a batch uses: this process's own, and those of others that were idle."""

    own: int
    borrowed: int

    @property
    def span(self) -> int:
        """How many they are."""
        return self.own + self.borrowed


class Instances:
    """Which instances are free. All of it lives on the event loop.

    Args:
        count: This process's own.
        team: The processes whose instances this one may use, if it may; each has as many.

    Attributes:
        count: This process's own.
        idle: Those of them that nothing uses; below zero, so many claims wait for one.
    """

    def __init__(self, count: int, team: Team | None) -> None:
        self.count = self.idle = count
        self._team = team
        self._borrowed = 0

    @property
    def of_others(self) -> int:
        """How many there are beside this process's own."""
        return 0 if self._team is None else self.count * (self._team.size - 1)

    def borrowable(self) -> int:
        """Those of other processes that nobody uses at this moment."""
        if self._team is None:
            return 0
        return max(0, self.of_others - self._borrowed - self._team.busy_elsewhere())

    def take(self, claim: Claim) -> None:
        """Use them until they are given back."""
        self.idle -= claim.own
        self._borrowed += claim.borrowed
        self._tell()

    def give_back(self, claim: Claim) -> None:
        """Use them no more."""
        self.idle += claim.own
        self._borrowed -= claim.borrowed
        self._tell()

    def _tell(self) -> None:
        if self._team is not None:
            self._team.tell_busy(self.count - max(0, self.idle) + self._borrowed)
