"""A real Prometheus beside a server under load: panels, rules, alerts and quantiles."""

import bisect
import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import numpy as np
import pytest
import yaml

from service.observe.metrics import SECONDS
from support.dashboards import DASHBOARDS, DOCKER, MAY_BE_EMPTY, queries, shown
from support.model_files import model_file
from support.onnx_models import tiny_yolox_model
from support.pictures import plain
from support.prometheus import CONFIG, Prometheus, tool
from support.servers import Server, server

# In the middle of their buckets, so that a client's own few milliseconds change no bucket.
UNEVEN_ENGINE = """
import itertools, time, service.engine.onnx_cpu as engine
real, turns = engine.OnnxCpuEngine.infer, itertools.count()
def infer(self, images, span):
    time.sleep(0.4 if next(turns) % 20 == 19 else 0.12)
    return real(self, images)
engine.OnnxCpuEngine.infer = infer
"""
PANELS = [(panel["title"], panel) for dashboard in DASHBOARDS for panel in shown(dashboard)]
RULES = [
    rule
    for name in ("recording.yml", "alerts.yml")
    for group in yaml.safe_load((CONFIG / name).read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = [rule["record"] for rule in RULES if "record" in rule]
CLIENTS = 3


@dataclass
class Load:
    """Clients that send one image after the other until told to stop, and time every answer."""

    running: Server
    seconds: list[float] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def send(self) -> None:
        with httpx2.Client(base_url=self.running.url, timeout=60) as client:
            while not self.stop.is_set():
                started = time.perf_counter()
                answer = client.post(
                    "/detect", content=plain(255), headers={"Content-Type": "image/png"}
                )
                assert answer.status_code == 200
                self.seconds.append(time.perf_counter() - started)

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        threads = [threading.Thread(target=self.send) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join(60)


@dataclass(frozen=True)
class Watched:
    """A Prometheus that has seen a load, and what the clients measured of the same requests."""

    prometheus: Prometheus
    seconds: list[float]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("prometheus")
    tool("prometheus")
    model = model_file(folder, tiny_yolox_model())
    with server(model, "--engine-instances", "2", sabotage=UNEVEN_ENGINE) as running:
        prometheus = Prometheus(running.url.removeprefix("http://"), folder)
        with contextlib.closing(prometheus):
            load = Load(running)
            refused = running.client.post("/detect", content=b"text")
            assert refused.status_code == 415
            with load.sending():
                wait_until(prometheus, lambda: len(load.seconds) >= 100)
                for name in RECORDED:
                    wait_until(prometheus, lambda name=name: bool(prometheus.values(name)))
            answered = (
                f'yolox_requests_total{{endpoint="/detect",status="200"}} == {len(load.seconds)}'
            )
            wait_until(prometheus, lambda: bool(prometheus.values(answered)))
            yield Watched(prometheus, load.seconds)


def wait_until(prometheus: Prometheus, told: Any) -> None:
    """Ask until it is so; each turn waits for Prometheus to have scraped once more."""
    scrapes = "sum(count_over_time(up[10m]))"
    end = time.monotonic() + 120
    while not told():
        assert time.monotonic() < end, "Prometheus never had what the test waits for"
        before = prometheus.values(scrapes)
        while prometheus.values(scrapes) == before and time.monotonic() < end:
            threading.Event().wait(0.1)


# Dashboards


@pytest.mark.parametrize(
    "panel", [panel for _, panel in PANELS], ids=[title for title, _ in PANELS]
)
def test_every_query_of_a_panel_has_data(watched: Watched, panel: dict[str, Any]) -> None:
    for query in queries(panel):
        values = watched.prometheus.values(query)
        assert values or MAY_BE_EMPTY in panel["description"], query


def test_the_slowest_stage_is_the_one_that_was_made_slow(watched: Watched) -> None:
    (panel,) = [panel for title, panel in PANELS if title == "Slowest stage"]
    data = watched.prometheus.ask("query", query=queries(panel)[0])
    assert [series["metric"]["stage"] for series in data["result"]] == ["inference"]


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
def test_quantiles_are_those_that_clients_measured_within_one_bucket(
    watched: Watched, quantile: float
) -> None:
    bucket = 'yolox_request_duration_seconds_bucket{endpoint="/detect"}'
    (told,) = watched.prometheus.values(f"histogram_quantile({quantile}, sum by (le) ({bucket}))")
    measured = float(np.quantile(watched.seconds, quantile))
    assert abs(bisect.bisect_left(SECONDS, told) - bisect.bisect_left(SECONDS, measured)) <= 1
    assert measured > 0.1


# Rules


def test_prometheus_evaluates_every_rule_without_error(watched: Watched) -> None:
    groups = watched.prometheus.ask("rules")["groups"]
    health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert set(health) == {rule.get("alert") or rule["record"] for rule in RULES}
    assert set(health.values()) == {"ok"}


def test_a_healthy_server_sets_off_no_alert(watched: Watched) -> None:
    assert watched.prometheus.values('ALERTS{alertstate="firing"}') == []


@pytest.mark.parametrize(
    "arguments", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")]
)
def test_promtool_accepts(arguments: tuple[str, ...]) -> None:
    *command, file = arguments
    done = subprocess.run(
        [tool("promtool"), *command, CONFIG / file], capture_output=True, text=True, check=False,
        env={"GOGC": "400"} | os.environ,  # a quarter less time
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["recording.yml", "alerts.yml"])
def test_promtool_accepts_the_rules(name: str) -> None:
    command = [tool("promtool"), "check", "rules", CONFIG / name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout + done.stderr


@pytest.mark.parametrize("alert", [rule["alert"] for rule in ALERTS])
def test_every_alert_is_tested_firing_and_silent(alert: str) -> None:
    tests = yaml.safe_load((CONFIG / "alerts_test.yml").read_text())["tests"]
    expected = [
        bool(case["exp_alerts"])
        for test in tests
        for case in test["alert_rule_test"]
        if case["alertname"] == alert
    ]
    assert set(expected) == {True, False}


@pytest.mark.parametrize("rule", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_every_alert_says_what_is_wrong_and_where_to_read_on(rule: dict[str, Any]) -> None:
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    published = '{{ or $externalLabels.runbooks "docker/RUNBOOK.md" }}'
    assert notes["runbook_url"] == f"{published}#{rule['alert'].lower()}"
    assert rule["labels"]["severity"] in {"critical", "warning"}


def test_the_runbook_has_a_page_for_every_alert_and_for_no_other() -> None:
    lines = (DOCKER / "RUNBOOK.md").read_text().splitlines()
    pages = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert sorted(pages) == sorted(rule["alert"] for rule in ALERTS)


def test_the_runbook_names_panels_that_exist() -> None:
    runbook = (DOCKER / "RUNBOOK.md").read_text().replace("\n", " ")
    named = set(runbook.split('"')[1::2])
    assert named <= {title for title, _ in PANELS}
    assert named
