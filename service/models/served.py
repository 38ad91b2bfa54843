"""One loaded version of a model: all that answers a request for it."""

from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from service.core.suppress import DetectionOptions
from service.engine.base import Engine
from service.pipeline.detector import Detector

MAX_LABEL: Final = 100


class ModelRef(BaseModel):
    """The model that answered, and the execution provider that it really runs on."""

    name: str
    version: str
    provider: str


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ServedModel:
    """One loaded version of a model, all that answers a request for it.

    A request keeps the one that it began with to its end, so that it is answered by one version
    though another take its place meanwhile.

    Attributes:
        name: The name that requests use.
        version: Likewise.
        engine: Runs the network.
        detector: From the bytes of images to their boxes; its `contract` is the model's.
        class_names: A name for each class id.
        defaults: The options of a request that has none.
        ref: The model as answers name it.
        label: The model as log lines name it: bounded, and harmless on a terminal.
    """

    name: str
    version: str
    engine: Engine
    detector: Detector
    class_names: tuple[str, ...]
    defaults: DetectionOptions
    ref: ModelRef
    label: str


def model_label(name: str, version: str) -> str:
    """A model as log lines name it: bounded, and harmless on a terminal."""
    label = f"{name}@{version}"
    return "".join(letter if letter.isprintable() else "?" for letter in label)[:MAX_LABEL]
