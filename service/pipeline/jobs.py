"""A loaded model as the pipelines run it, and the work that waits for it in the queue."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from service.engine.base import Engine
from service.pipeline.stages import Stages
from service.queue.runner import QueuedModel

Work = TypeVar("Work")


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class RunnableModel:
    """A loaded model as the pipelines run it. Whatever still has work for it holds a reference.

    Attributes:
        engine: Runs the network.
        stages: The steps before and after it.
        queued: The model as the queue sees it.
    """

    engine: Engine
    stages: Stages
    queued: QueuedModel

    def span(self, width: int) -> int:
        """The span of a call in a number of slots: that of all, or one where the engine has none.

        Engines of different kinds have different spans.
        """
        return width if width == 1 or width in self.engine.spans else 1


@dataclass(frozen=True, slots=True, eq=False)
class Job(Generic[Work]):
    """One image, and the model that is to look at it.

    Attributes:
        model: The model.
        work: The image, as far as it has come.
    """

    model: RunnableModel
    work: Work
