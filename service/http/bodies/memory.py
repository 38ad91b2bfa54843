"""A bound on the memory of all bodies together."""

from typing import Self

from service.errors import BusyError


class BodyMemory:
    """A bound on the bytes of all request bodies that are held at once.

    Args:
        max_bytes: The bound.

    Attributes:
        capacity: The bound.
        free: How many bytes are left of it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.capacity = self.free = max_bytes


class BodyLease:
    """The share that one request holds of a `BodyMemory` until the context is left.

    Args:
        memory: The bound.

    Attributes:
        held: The bytes.
    """

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self.held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.free += self.held

    @property
    def capacity(self) -> int:
        """The bound on the bytes of all."""
        return self._memory.capacity

    def grow(self, count: int) -> None:
        """Hold this number of bytes more.

        Raises:
            BusyError: They are not free.
        """
        if count > self._memory.free:
            raise BusyError("too many bytes of requests are held at once", retry_after_s=1)
        self._memory.free -= count
        self.held += count
