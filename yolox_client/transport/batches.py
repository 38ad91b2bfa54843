"""Many images in batches, a few of which are under way at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")

BATCH: Final = 4
CONCURRENCY: Final = 8


def check_counts(batch: int, concurrency: int) -> None:
    """Refuse numbers that mean nothing.

    Raises:
        ValueError: One is below 1.
    """
    if batch < 1 or concurrency < 1:
        raise ValueError("batch and concurrency must be at least 1")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of successive items; the last may be shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def in_order(work: Callable[[T], R], items: Iterable[T], concurrency: int) -> Iterator[R]:
    """The results in the order of the items, with some items under way on threads.

    Items are taken when there is room for them, so there may be any number, or no end of them.
    After an error nothing more is begun.
    """
    pool = ThreadPoolExecutor(concurrency, "yolox-client")
    under_way: deque[Future[R]] = deque()
    try:
        for item in items:
            under_way.append(pool.submit(work, item))
            if len(under_way) > concurrency:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
