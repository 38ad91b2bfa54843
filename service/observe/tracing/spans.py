"""OpenTelemetry spans of requests, of the stages of their images, and of batches.

Needs the extra `tracing`; `open_tracing` imports this module only where spans are asked for.
"""

import time
from collections.abc import Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.observe.tracing.trace import (
    TRACEPARENT,
    TRACESTATE,
    Attributes,
    Headers,
    Stretch,
    Trace,
    sole,
)

NAME: Final = "yolox-serve"
UNNAMED: Final = "unknown_service"
PROPAGATOR: Final = TraceContextTextMapPropagator()


class SpanTrace:
    """A request's span, and those of its images' stages below it.

    Args:
        tracer: Makes the spans.
        span: The request's.

    Attributes:
        context: The ids of the request's span.
    """

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self.context = span.get_span_context()

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits: the same for all that belongs to the trace."""
        return f"{self.context.trace_id:032x}"

    @property
    def traceparent(self) -> str:
        """The header by which this request is the parent of what it causes."""
        flags = int(self.context.trace_flags)
        return f"00-{self.trace_id}-{self.context.span_id:016x}-{flags:02x}"

    @property
    def is_sampled(self) -> bool:
        """Whether the trace is kept, so that it can be looked up by its id."""
        return self.context.trace_flags.sampled

    def add_image(
        self, stretches: Sequence[Stretch], attributes: Attributes, batch: object = None
    ) -> None:
        """Send a span for each stage of an image; that of the model is linked to its batch."""
        if not self._span.is_recording():
            return
        parent = set_span_in_context(self._span)
        for stretch in stretches:
            links = [batch] if isinstance(batch, Link) and stretch.stage == "inference" else []
            span = self._tracer.start_span(
                stretch.stage,
                parent,
                links=links,
                attributes=attributes,
                start_time=_wall_clock(stretch.began),
            )
            span.end(_wall_clock(stretch.began + stretch.seconds))

    def end(self, name: str, attributes: Attributes, *, failed: bool) -> None:
        """Send the request's span."""
        self._span.update_name(name)
        self._span.set_attributes(attributes)
        if failed:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class Spans:
    """Sends spans by OpenTelemetry's SDK, whose own environment variables say where and which.

    Args:
        version: The server's version.
        processor: Takes the ended spans; by default they go out by OTLP over HTTP, in batches, on
            a thread of their own.
    """

    traces_all = True

    def __init__(self, version: str, processor: SpanProcessor | None = None) -> None:
        self._provider = TracerProvider(resource=_resource(version))
        self._provider.add_span_processor(processor or BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(NAME, version)

    def begin(self, headers: Headers) -> SpanTrace:
        """A span for a request that begins now, under the client's span if it sent one."""
        carrier = {
            name.decode(): value.decode("latin-1")
            for name in (TRACEPARENT, TRACESTATE)
            if (value := sole(headers, name)) is not None
        }
        parent = PROPAGATOR.extract(carrier, Context())
        # Its name holds the route, which is known when the request ends.
        return SpanTrace(self._tracer, self._tracer.start_span("request", parent, SpanKind.SERVER))

    def add_batch(
        self, traces: Sequence[Trace | None], began: float, ended: float, model: str
    ) -> Link | None:
        """A span of its own for a batch, linked to the requests whose images it holds."""
        requests = [trace.context for trace in traces if isinstance(trace, SpanTrace)]
        if not any(request.trace_flags.sampled for request in requests):
            return None
        span = self._tracer.start_span(
            "batch",
            Context(),
            links=[Link(request) for request in requests],
            attributes={"yolox.batch.images": len(traces), "yolox.model": model},
            start_time=_wall_clock(began),
        )
        span.end(_wall_clock(ended))
        return Link(span.get_span_context())

    def stop(self) -> None:
        """Send what is not sent yet."""
        self._provider.shutdown()


def _resource(version: str) -> Resource:
    """The facts about this server that its spans carry; the environment's names come first."""
    given = Resource.create()
    own = Resource({SERVICE_NAME: NAME, SERVICE_VERSION: version})
    unnamed = str(given.attributes[SERVICE_NAME]).startswith(UNNAMED)
    return given.merge(own) if unnamed else own.merge(given)


def _wall_clock(monotonic: float) -> int:
    """Nanoseconds since 1970 at a time of `time.monotonic()`."""
    return time.time_ns() - int((time.monotonic() - monotonic) * 1e9)
