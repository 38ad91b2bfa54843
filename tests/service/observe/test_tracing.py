"""Traces: what is carried on, what is logged and measured with them, and the spans that go out."""

import contextlib
import gzip
import http.server
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from service.errors import StartupError
from service.observe.logs import configure_logs
from service.observe.tracing import spans
from service.observe.tracing.choose import open_tracing
from service.observe.tracing.trace import CURRENT, Carrying, carried
from service.settings import Settings
from support.client import PNG, as_raw, serving
from support.engines import CpuEngine, FakeEngine
from support.pictures import plain
from support.servers import SIGTERM, Server

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
KEPT, LEFT = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
STAGES = ["decode", "queue", "inference", "postprocess"]

Exported = Callable[[], dict[str, list[ReadableSpan]]]


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Exported:
    """The spans that ended so far, by name."""
    memory = InMemorySpanExporter()
    monkeypatch.setattr(spans, "OTLPSpanExporter", lambda: memory)
    monkeypatch.setattr(spans, "BatchSpanProcessor", SimpleSpanProcessor)

    def read() -> dict[str, list[ReadableSpan]]:
        found = dict[str, list[ReadableSpan]]()
        for span in memory.get_finished_spans():
            found.setdefault(span.name, []).append(span)
        return found

    return read


def context(span: ReadableSpan) -> Any:
    assert span.context is not None
    return span.context


def send(client: Any, traceparent: str | None, **headers: str) -> Any:
    more = {} if traceparent is None else {"traceparent": traceparent}
    return client.post("/detect", content=plain(255), headers=PNG | more | headers)


@pytest.mark.parametrize(
    ("header", "is_sampled"),
    [
        (KEPT, True),
        (LEFT, False),
        (f"00-{TRACE}-{PARENT}-03", True),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like", True),
        (f"  {KEPT} ", True),
    ],
)
def test_a_trace_is_carried_on_under_a_new_span(header: str, is_sampled: bool) -> None:
    trace = carried(header.encode())
    assert trace is not None
    assert (trace.trace_id, trace.is_sampled) == (TRACE, is_sampled)
    assert trace.span_id != PARENT
    assert trace.traceparent == f"00-{TRACE}-{trace.span_id}-0{int(is_sampled)}"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        KEPT.upper(),
        f"{KEPT}-more",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-1",
        f"cc-{TRACE}-{PARENT}-01.more",
    ],
)
def test_a_malformed_trace_is_none(header: str) -> None:
    assert carried(header.encode()) is None


def test_two_traces_are_none() -> None:
    assert Carrying().begin([(b"traceparent", KEPT.encode())] * 2) is None


def test_without_a_trace_an_answer_names_none() -> None:
    with serving() as client:
        assert "traceparent" not in as_raw(client, plain(255)).headers


@pytest.mark.parametrize("engine", [FakeEngine, CpuEngine])
def test_answer_log_and_metrics_lead_to_the_client_s_trace(
    engine: type[FakeEngine],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure_logs("json", "info")
    monkeypatch.setattr("service.http.exchange.log", structlog.get_logger("service.access"))
    monkeypatch.setattr("service.pipeline.detector.log", structlog.get_logger("detector"))
    metrics = {"Accept": "application/openmetrics-text; version=1.0.0"}
    with serving(engine()) as client:
        answer = send(client, KEPT)
        refused = client.post("/detect", content=b"no image", headers={"traceparent": KEPT})
        send(client, f"00-{'a' * 32}-{PARENT}-00")
        send(client, None)
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        text = client.get("/metrics", headers=metrics).text
    configure_logs("json", "warning")
    assert answer.headers["traceparent"].startswith(f"00-{TRACE}-")
    assert refused.status_code == 415
    assert refused.headers["traceparent"].startswith(f"00-{TRACE}-")
    requests = [line.get("trace_id") for line in lines if line["event"] == "request"]
    assert requests == [TRACE, TRACE, "a" * 32, None]
    examples = [line for line in text.splitlines() if f'# {{trace_id="{TRACE}"}}' in line]
    for name in ("yolox_request_duration_seconds_bucket", "yolox_stage_duration_seconds_bucket"):
        assert any(line.startswith(name) for line in examples), name
    assert "a" * 32 not in text, "a trace that its client does not keep"
    assert CURRENT.get() is None


def test_every_line_of_a_request_has_its_trace(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logs("json", "info")
    monkeypatch.setattr("service.pipeline.detector.log", structlog.get_logger("detector"))
    monkeypatch.setattr("service.pipeline.stages.find_objects", lambda *_: 1 / 0)
    with serving() as client:
        assert send(client, KEPT).status_code == 500
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    configure_logs("json", "warning")
    (failed,) = [line for line in lines if line["event"] == "image failed"]
    assert failed["trace_id"] == TRACE


@pytest.mark.parametrize("engine", [FakeEngine, CpuEngine])
def test_a_request_is_one_span_with_its_stages_below_it(
    engine: type[FakeEngine], exported: Exported
) -> None:
    with serving(engine(), tracing=True) as client:
        answer = send(client, KEPT, tracestate="vendor=1")
    found = exported()
    (request,) = found["POST /detect"]
    assert request.kind is SpanKind.SERVER
    assert request.parent is not None
    assert f"{request.parent.trace_id:032x}-{request.parent.span_id:016x}" == f"{TRACE}-{PARENT}"
    assert context(request).trace_state.get("vendor") == "1"
    own = f"{context(request).span_id:016x}"
    assert answer.headers["traceparent"] == f"00-{TRACE}-{own}-01"
    facts = dict(request.attributes or {})
    assert facts["http.request.method"] == "POST"
    assert facts["http.route"] == "/detect"
    assert facts["http.response.status_code"] == 200
    assert (facts["yolox.images"], facts["yolox.model"]) == (1, "fake@1")
    (result,) = answer.json()["results"]
    for stage in STAGES:
        (span,) = found[stage]
        assert span.parent is not None
        assert span.parent.span_id == context(request).span_id
        assert (span.attributes or {})["yolox.detections"] == len(result["detections"])
        assert span.start_time is not None
        assert span.end_time is not None
        assert request.start_time is not None
        assert request.end_time is not None
        # Two clocks are read one after the other.
        assert request.start_time - 1_000_000 <= span.start_time <= span.end_time
        assert span.end_time <= request.end_time + 1_000_000
    spent = {stage: found[stage][0] for stage in STAGES}
    order = sorted(STAGES, key=lambda stage: spent[stage].start_time or 0)
    first = ["queue", "decode"] if engine is CpuEngine else ["decode", "queue"]
    assert order == [*first, "inference", "postprocess"]


def test_a_request_without_a_trace_begins_one(exported: Exported) -> None:
    with serving(tracing=True) as client:
        answers = [send(client, None) for _ in range(2)]
    traces = {answer.headers["traceparent"].split("-")[1] for answer in answers}
    assert len(traces) == 2
    assert traces == {f"{context(span).trace_id:032x}" for span in exported()["POST /detect"]}


def test_a_trace_that_its_client_does_not_keep_has_no_spans(exported: Exported) -> None:
    with serving(tracing=True) as client:
        answer = send(client, LEFT)
    assert answer.headers["traceparent"].endswith("-00")
    assert exported() == {}


def test_a_batch_is_linked_to_the_requests_whose_images_it_held(exported: Exported) -> None:
    engine = FakeEngine()
    with serving(engine, tracing=True, engine_instances=1) as client:
        while engine.started.acquire(blocking=False):
            pass  # the probe of the start
        engine.gate.clear()
        with ThreadPoolExecutor(3) as pool:
            # The first holds the engine; the other two wait, and share a batch.
            sent = [pool.submit(send, client, None)]
            assert engine.started.acquire(timeout=20)
            sent += [pool.submit(send, client, None) for _ in range(2)]
            ends = time.monotonic() + 20
            while "yolox_queue_images 2.0" not in client.get("/metrics").text:
                assert time.monotonic() < ends
            engine.gate.set()
            parents = [each.result().headers["traceparent"] for each in sent]
    found = exported()
    (batch,) = found["batch"]
    assert dict(batch.attributes or {}) == {"yolox.batch.images": 2, "yolox.model": "fake@1"}
    assert batch.parent is None
    together = {f"{link.context.trace_id:032x}" for link in batch.links}
    assert together == {parent.split("-")[1] for parent in parents[1:]}
    linked = [
        f"{context(span).trace_id:032x}"
        for span in found["inference"]
        for link in span.links
        if link.context == context(batch)
    ]
    assert set(linked) == together


def test_a_failure_is_named_and_only_the_server_s_own_is_an_error(exported: Exported) -> None:
    engine = FakeEngine()
    with serving(engine, tracing=True) as client:
        client.post("/detect", content=b"no image")
        engine.error = ValueError("out of memory")
        send(client, None)
        client.get("/nowhere")
    spans_of = exported()
    refused, failed = spans_of["POST /detect"]
    assert (refused.attributes or {})["error.type"] == "unsupported-type"
    assert refused.status.status_code is StatusCode.UNSET
    assert (failed.attributes or {})["error.type"] == "model-failed"
    assert failed.status.status_code is StatusCode.ERROR
    assert list(spans_of) == ["POST /detect", "GET unmatched"]


def test_without_the_sdk_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "service.observe.tracing.spans", None)
    with pytest.raises(StartupError, match=r"pip install 'yolox-serve\[tracing\]'"):
        open_tracing("1", spans=True)


def test_the_resource_has_the_environment_s_name_or_our_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def name() -> Any:
        tracing = spans.Spans("1.2", SimpleSpanProcessor(InMemorySpanExporter()))
        return tracing._provider.resource.attributes["service.name"]

    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    assert name() == "yolox-serve"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "gate-3")
    assert name() == "gate-3"


class Collector(http.server.ThreadingHTTPServer):
    """Keeps what OpenTelemetry's exporter sends to it by HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        super().__init__(("127.0.0.1", 0), Intake)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Intake(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        message = ExportTraceServiceRequest.FromString(body)
        assert isinstance(self.server, Collector)
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_stopping_server_has_sent_the_whole_trace(collector: Collector) -> None:
    server = Server("--tracing", environment={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    with contextlib.closing(server):
        assert send(server.client, KEPT).status_code == 200
        server.send(SIGTERM)
        assert server.exit_code() == 0
    own = [span for span in collector.spans if span.trace_id.hex() == TRACE]
    (request,) = [span for span in own if span.name == "POST /detect"]
    assert request.parent_span_id.hex() == PARENT
    stages = {span.name for span in own if span.parent_span_id == request.span_id}
    assert stages == set(STAGES)


def test_a_collector_that_is_not_there_holds_up_no_stop() -> None:
    nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    with contextlib.closing(Server("--tracing", environment=nowhere)) as server:
        assert send(server.client, KEPT).status_code == 200
        server.send(SIGTERM)
        assert server.exit_code() == 0


def test_the_setting_is_off_by_default() -> None:
    assert not Settings().tracing
