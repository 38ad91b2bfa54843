"""The interface between the batcher and the code that runs a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from service.observe.model_metrics import ModelMetrics

Item_contra = TypeVar("Item_contra", bound="QueueItem", contravariant=True)
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


class LoadedModel(Protocol):
    """A model that the queue has items for."""

    @property
    def queued(self) -> QueuedModel:
        """The model as the queue sees it."""


class QueueItem(Protocol):
    """An item of the queue."""

    @property
    def model(self) -> LoadedModel:
        """The model that it is for."""


class BatchRunner(Protocol[Item_contra, Result_co]):
    """Runs batches, each of one model; several threads may call it at once."""

    def fit_together(self, first: Item_contra, second: Item_contra) -> bool:
        """Whether two items may be in the same batch."""

    def run(
        self, items: Sequence[Item_contra], waited_s: Sequence[float], width: int
    ) -> Sequence[Result_co | Exception]:
        """Run a batch on the CPUs of `width` slots.

        Args:
            items: The items.
            waited_s: How long each has waited in the queue, in seconds.
            width: Slots that the batch may use.

        Returns:
            One result for each item. An exception in place of a result is that item's alone.

        Raises:
            Exception: The model could not run, so the whole batch has failed.
        """
