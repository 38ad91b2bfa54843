"""The metrics: what they count while a request runs, and that the documentation lists them."""

import re
from concurrent.futures import ThreadPoolExecutor

from prometheus_client.metrics_core import Metric

from service.observe.metrics import Metrics
from support.client import as_raw, metric, serving
from support.engines import FakeEngine
from support.pictures import plain
from support.project import ROOT

TABLE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
# They exist only where the model runs on a GPU; tests/test_gpus.py has them.
GPU_METRICS = {
    "yolox_gpu_utilization_ratio",
    "yolox_gpu_memory_used_bytes",
    "yolox_gpu_memory_total_bytes",
}


def shown_name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def documented_labels() -> dict[str, set[str]]:
    rows = re.findall(r"^\| (`[^|]+`) \|([^|]*)\|", TABLE, re.MULTILINE)
    return {
        name: {label.strip() for label in labels.split(",") if label.strip()}
        for names, labels in rows
        for name in re.findall(r"`(\w+)`", names)
    }


def test_the_documentation_lists_exactly_the_metrics_that_there_are() -> None:
    there = {shown_name(family) for family in Metrics().registry.collect()}
    assert set(documented_labels()) == there | GPU_METRICS


def test_the_documentation_lists_the_labels_of_every_metric_of_our_own() -> None:
    listed = documented_labels()
    for metric_object in vars(Metrics()).values():
        if hasattr(metric_object, "_labelnames"):
            name = shown_name(metric_object.describe()[0])
            assert listed[name] == set(metric_object._labelnames), name


def test_a_request_is_in_flight_until_it_is_answered_and_a_scrape_is_not() -> None:
    engine = FakeEngine()
    with serving(engine) as client, ThreadPoolExecutor(1) as pool:
        assert metric(client, "yolox_requests_in_flight") == 0
        assert engine.started.acquire(timeout=30)  # the start's own probe
        engine.gate.clear()
        answer = pool.submit(as_raw, client, plain())
        assert engine.started.acquire(timeout=30)
        assert metric(client, "yolox_requests_in_flight") == 1
        engine.gate.set()
        assert answer.result(timeout=30).status_code == 200
        assert metric(client, "yolox_requests_in_flight") == 0


def test_capacity_is_that_of_settings_and_engine() -> None:
    with serving(FakeEngine(max_batch=4), max_queue_images=50, engine_instances=3) as client:
        assert metric(client, "yolox_queue_capacity_images") == 50
        assert metric(client, "yolox_batch_capacity_images") == 4
        assert metric(client, "yolox_engine_instances") == 3


def test_an_engine_is_busy_while_it_fails_too() -> None:
    engine = FakeEngine()
    with serving(engine) as client:
        before = metric(client, "yolox_engine_busy_seconds_total")
        engine.error = ValueError("broken")
        assert as_raw(client, plain()).status_code == 503
        assert metric(client, "yolox_engine_busy_seconds_total") > before


def test_another_provider_than_wanted_is_told() -> None:
    engine = FakeEngine()
    with serving(engine) as client:
        assert metric(client, "yolox_provider_mismatch") == 0
    engine.wanted_provider = "CUDAExecutionProvider"
    with serving(engine) as client:
        assert metric(client, "yolox_provider_mismatch") == 1
