"""The interface between the batcher and the code that runs a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from service.observe.model_metrics import ModelMetrics

Result = TypeVar("Result")
Item_contra = TypeVar("Item_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


@dataclass(slots=True, eq=False)
class QueuedModel:
    """A model as the queue sees it; all but `max_batch` and `metrics` changes on the event loop.

    Attributes:
        max_batch: Maximum number of its images in a batch.
        metrics: Where its batches are counted.
        failures_in_a_row: Its batches that have failed since the last success.
        last_success: `time.monotonic()` when a batch of it last succeeded, or None.
        last_used: `time.monotonic()` when an image for it was last queued.
    """

    max_batch: int
    metrics: ModelMetrics
    failures_in_a_row: int = 0
    last_success: float | None = None
    last_used: float = 0.0


class BatchRunner(Protocol[Item_contra, Result_co]):
    """Runs batches, each of one model; several threads may call it at once."""

    def model_of(self, item: Item_contra) -> QueuedModel:
        """The model that an item is for."""

    def fit_together(self, first: Item_contra, second: Item_contra) -> bool:
        """Whether two items may be in the same batch."""

    def run(self, items: Sequence[Item_contra], width: int) -> Sequence[Result_co | Exception]:
        """Run a batch on the CPUs of `width` slots.

        Returns:
            One result for each item. An exception in place of a result is that item's alone.

        Raises:
            Exception: The model could not run, so the whole batch has failed.
        """


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """The result of one item, and where its time went.

    Attributes:
        result: The runner's result.
        queue_s: Seconds between submission and the start of its batch.
        run_s: Seconds that its batch ran.
        started: `time.monotonic()` when its batch started.
        batch: The link to its batch, for its trace.
    """

    result: Result
    queue_s: float
    run_s: float
    started: float
    batch: object = None
