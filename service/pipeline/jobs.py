"""A loaded model as the pipelines run it, and the work that waits for it in the queue."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.engine.base import Engine
from service.observe.tracing.trace import Trace
from service.pipeline.stages import Stages, StageSeconds
from service.queue.runner import QueuedModel

Work = TypeVar("Work")


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class RunnableModel:
    """A loaded model as the pipelines run it. Whatever still has work for it holds a reference.

    Attributes:
        engine: Runs the network.
        stages: The steps before and after it.
        queued: The model as the queue sees it.
        spans: How many slots a call of the engine can use; engines differ.
    """

    engine: Engine
    stages: Stages
    queued: QueuedModel
    spans: frozenset[int]


@dataclass(frozen=True, slots=True, eq=False)
class Job(Generic[Work]):
    """One image, and the model that is to look at it.

    Attributes:
        model: The model.
        work: The image, as far as it has come.
        seconds: Where its time has gone until then.
        trace: The trace of its request, if that has one.
    """

    model: RunnableModel
    work: Work
    seconds: StageSeconds = field(default_factory=StageSeconds)
    trace: Trace | None = None
