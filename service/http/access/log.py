"""The access log: one line for each request."""

from dataclasses import dataclass
from typing import Final

import structlog
from starlette.types import Scope

QUIET_ENDPOINTS: Final = ("/metrics", "/health/live", "/health/ready")
MAX_MODEL_LENGTH: Final = 100
NOTE: Final = "yolox-serve.note"

log = structlog.get_logger("service.access")


@dataclass(slots=True)
class RequestNote:
    """Facts that a route notes about a request for its line; no text of a client's is among them.

    Attributes:
        bytes: Bytes of the body that were read.
        images: Number of its images.
        detections: Number of boxes in the answer.
        model: The model that answered, as `model_label` gives it.
        problem: The last part of the problem's `type`, if the answer is a problem.
    """

    bytes: int = 0
    images: int | None = None
    detections: int | None = None
    model: str | None = None
    problem: str | None = None

    def fields(self) -> dict[str, object]:
        """The facts that were noted."""
        every = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in every.items() if value is not None}


def note_of(scope: Scope) -> RequestNote:
    """The note of the request that an ASGI scope describes."""
    note: RequestNote = scope[NOTE]
    return note


def model_label(name: str, version: str) -> str:
    """A model as log lines name it: bounded, and harmless on a terminal."""
    label = f"{name}@{version}"
    return "".join(letter if letter.isprintable() else "?" for letter in label)[:MAX_MODEL_LENGTH]


def log_request(fields: dict[str, object], note: RequestNote) -> None:
    """Write the line of a request: the fields that every request has, and those of its note."""
    write = log.debug if fields["endpoint"] in QUIET_ENDPOINTS else log.info
    write("request", **fields, **note.fields())
