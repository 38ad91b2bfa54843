"""The trace that a request belongs to, by the W3C's Trace Context (level 1)."""

import random
import re
from collections.abc import Iterable, MutableMapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

Headers = Iterable[tuple[bytes, bytes]]
Attributes = dict[str, str | int | float | bool]

TRACEPARENT: Final = b"traceparent"
TRACESTATE: Final = b"tracestate"
# Later versions may add fields at the end; version ff is none.
FORM: Final = re.compile(rb"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SAMPLED: Final = 1


class Stretch(NamedTuple):
    """A stage of one image.

    Attributes:
        stage: Its name.
        began: `time.monotonic()` when it began.
        seconds: How long it took.
    """

    stage: str
    began: float
    seconds: float


class Trace(Protocol):
    """One request's part of a trace."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits: the same for all that belongs to the trace."""

    @property
    def traceparent(self) -> str:
        """The header by which this request is the parent of what it causes."""

    @property
    def is_sampled(self) -> bool:
        """Whether the trace is kept, so that it can be looked up by its id."""

    def add_image(
        self, stretches: Sequence[Stretch], attributes: Attributes, batch: object = None
    ) -> None:
        """Note an image's stages; `batch` is what `Tracing.add_batch` gave for its batch."""

    def end(self, name: str, attributes: Attributes, *, failed: bool) -> None:
        """Note that the request is answered."""


class Tracing(Protocol):
    """Finds the trace of each request.

    Attributes:
        traces_all: Whether a request has a trace though its client sent none.
    """

    traces_all: bool

    def begin(self, headers: Headers) -> Trace | None:
        """The trace of a request that begins now; None where it has none."""

    def add_batch(
        self, traces: Sequence[Trace | None], began: float, ended: float, model: str
    ) -> object:
        """Note a batch of several requests' images, between two times of `time.monotonic()`.

        Returns:
            What links an image to the batch; None where nobody would see it.
        """

    def stop(self) -> None:
        """Send what is not sent yet."""


# The trace of the request that the running task works for.
CURRENT: Final[ContextVar[Trace | None]] = ContextVar("trace", default=None)


@dataclass(frozen=True, slots=True)
class CarriedTrace:
    """A client's trace that is carried on, without spans of the server.

    Attributes:
        trace_id: The client's.
        span_id: 16 hexadecimal digits that stand for this request.
        is_sampled: Whether the client keeps the trace.
    """

    trace_id: str
    span_id: str
    is_sampled: bool

    @property
    def traceparent(self) -> str:
        """The header by which this request is the parent of what it causes."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}"

    def add_image(
        self, stretches: Sequence[Stretch], attributes: Attributes, batch: object = None
    ) -> None:
        """Do nothing: nobody would see it."""

    def end(self, name: str, attributes: Attributes, *, failed: bool) -> None:
        """Do nothing: nobody would see it."""


class Carrying:
    """Carries on the traces of clients that have one, and sends nothing anywhere."""

    traces_all = False

    def begin(self, headers: Headers) -> CarriedTrace | None:
        """The client's trace, if it sent one."""
        sent = sole(headers, TRACEPARENT)
        return None if sent is None else carried(sent)

    def add_batch(
        self, traces: Sequence[Trace | None], began: float, ended: float, model: str
    ) -> object:
        """Do nothing: nobody would see it."""

    def stop(self) -> None:
        """Do nothing: there is nothing to send."""


def sole(headers: Headers, wanted: bytes) -> bytes | None:
    """The value of a header that is there once; None if there is none, or several."""
    values = [value for name, value in headers if name == wanted]
    return values[0] if len(values) == 1 else None


def carried(traceparent: bytes) -> CarriedTrace | None:
    """The trace of a `traceparent` header; None for one that is malformed, as the W3C asks."""
    found = FORM.fullmatch(traceparent.strip())
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == b"00" and more is not None:
        return None
    if not int(trace_id, 16) or not int(parent_id, 16):
        return None
    # An id of zeros would be none.
    span_id = f"{random.getrandbits(64) or 1:016x}"
    return CarriedTrace(trace_id.decode(), span_id, bool(int(flags, 16) & SAMPLED))


def exemplar() -> dict[str, str] | None:
    """The labels that lead from a metric to the current trace, if that is kept."""
    trace = CURRENT.get()
    return None if trace is None or not trace.is_sampled else {"trace_id": trace.trace_id}


def with_trace_id(_: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Structlog's processor that adds the current trace to a log line."""
    trace = CURRENT.get()
    if trace is not None:
        line["trace_id"] = trace.trace_id
    return line
