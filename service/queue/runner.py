"""The interface between the batcher and the code that runs a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Result = TypeVar("Result")
Item_contra = TypeVar("Item_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class BatchRunner(Protocol[Item_contra, Result_co]):
    """Runs batches; several threads may call it at once."""

    @property
    def max_batch(self) -> int:
        """Maximum number of items in a batch."""

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
    """

    result: Result
    queue_s: float
    run_s: float
