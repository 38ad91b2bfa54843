"""The ramp and the plan: their arithmetic, and one short ramp by a real k6."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.capacity.__main__ import main
from benchmarks.capacity.k6 import Target, described_step, find_k6, read_summary
from benchmarks.capacity.plan import (
    Measured,
    Site,
    images_per_core_hour,
    need_of,
    replicas_for,
    table,
)
from benchmarks.capacity.plan import main as plan
from benchmarks.capacity.ramp import Search, climb, greatest
from benchmarks.capacity.report import summary
from benchmarks.capacity.servers import Spent, cpu_ms_of_image, spent_in
from benchmarks.capacity.step import Objective, Step
from support.programs import needed
from support.project import ROOT
from support.servers import Server

OBJECTIVE = Objective(slo_ms=200, share=0.99)


def step(rate: float, good_share: float, offered: int = 1000) -> Step:
    good = round(good_share * offered)
    return Step(rate, offered, good, offered - good, 0, 0, 10.0, 20.0)


def server_of(limit: float) -> tuple[list[float], Callable[[float], Step]]:
    """A server that is good up to a rate, and the rates it was offered."""
    asked = list[float]()

    def measure(rate: float) -> Step:
        asked.append(rate)
        return step(rate, 1.0 if rate <= limit else 0.5)

    return asked, measure


@pytest.mark.parametrize("limit", [0.9, 3.0, 5.0, 37.0, 812.0])
def test_the_ramp_finds_the_greatest_rate_within_its_precision(limit: float) -> None:
    _, measure = server_of(limit)
    search = Search(first=5.0, precision=0.05)
    best = greatest(list(climb(measure, OBJECTIVE, search)), OBJECTIVE)
    assert best is not None
    assert best.rate <= limit < best.rate * 1.05 * 1.001


def test_a_server_that_is_never_good_ends_the_ramp() -> None:
    asked, measure = server_of(0.0)
    steps = list(climb(measure, OBJECTIVE, Search(first=16.0)))
    assert greatest(steps, OBJECTIVE) is None
    assert min(asked) == 1.0
    assert "no rate met the objective" in summary(None, OBJECTIVE)


def test_the_ramp_ends_at_its_limit() -> None:
    asked, measure = server_of(1e9)
    list(climb(measure, OBJECTIVE, Search(first=10.0, factor=2.0, limit=100.0)))
    assert asked == [10.0, 20.0, 40.0, 80.0]


def test_a_rate_that_fails_once_is_tried_again() -> None:
    seen = list[float]()

    def measure(rate: float) -> Step:
        seen.append(rate)
        return step(rate, 0.5 if seen.count(rate) == 1 else 1.0)

    steps = list(climb(measure, OBJECTIVE, Search(first=10.0, factor=2.0, limit=30.0)))
    assert seen == [10.0, 10.0, 20.0, 20.0]
    assert all(each.meets(OBJECTIVE) for each in steps)


def test_requests_that_were_due_and_not_sent_are_not_good() -> None:
    metrics = {
        "good": {"values": {"count": 80}},
        "refused": {"values": {"count": 5}},
        "answered": {"values": {"med": 12.5, "p(99)": 180.0}},
    }
    found = read_summary(metrics, rate=10.0, seconds=10.0)
    assert (found.offered, found.unsent, found.refused) == (100, 15, 5)
    assert found.good_share == 0.8
    assert (found.median_ms, found.p99_ms) == (12.5, 180.0)


def test_one_request_more_than_planned_is_no_more_than_all() -> None:
    found = read_summary({"good": {"values": {"count": 21}}}, rate=2.0, seconds=10.0)
    assert (found.offered, found.good_share, found.unsent) == (21, 1.0, 0)


def test_there_are_connections_for_every_request_that_may_wait(tmp_path: Path) -> None:
    target = Target("http://127.0.0.1:1/detect", [tmp_path / "a.jpg"])
    described = described_step(target, OBJECTIVE, 100.0, 10.0, tmp_path / "summary.json")
    # Ten times the objective, and half a second by which requests are spread.
    assert described["timeoutMs"] == 2000
    assert described["maxClients"] == 251
    assert described["clients"] == 71


def test_cpu_time_is_not_told_where_the_metrics_are_of_some_servers_only() -> None:
    before, after = Spent(10.0, 100.0), Spent(14.0, 200.0)
    assert cpu_ms_of_image(before, after, answered=100) == pytest.approx(40.0)
    assert cpu_ms_of_image(before, after, answered=103) == pytest.approx(40.0)
    assert cpu_ms_of_image(before, after, answered=200) is None
    assert cpu_ms_of_image(before, before, answered=0) is None


def test_metrics_of_all_models_and_outcomes_are_added() -> None:
    text = (
        "# TYPE yolox_images counter\n"
        'yolox_images_total{outcome="detected",model="a",version="1"} 3\n'
        'yolox_images_total{outcome="failed",model="b",version="1"} 2\n'
        "# TYPE process_cpu_seconds counter\n"
        "process_cpu_seconds_total 1.5\n"
    )
    assert spent_in(text) == Spent(1.5, 5.0)


@pytest.mark.parametrize(
    ("load", "rate", "replicas"),
    [(1, 38, 2), (26, 38, 2), (27, 38, 3), (1000, 38, 39), (10_000, 38, 377)],
)
def test_replicas_have_headroom_and_a_spare(load: float, rate: float, replicas: int) -> None:
    assert replicas_for(load, rate) == replicas


def test_a_replica_that_meets_no_rate_cannot_be_planned_with() -> None:
    with pytest.raises(ValueError, match="at no rate"):
        replicas_for(10, 0)


def test_a_core_hour_is_its_milliseconds() -> None:
    assert images_per_core_hour(45) == 80_000


def test_the_plan_names_what_breaks_first() -> None:
    measured = Measured(
        replica_rate=100,
        cpu_ms=20,
        balancer_cpu_ms=0.1,
        request_bytes=100_000,
        series=500,
        image_bytes=400e6,
    )
    need = need_of(10_000, measured, Site())
    assert need.replicas == 144
    assert need.cpus == pytest.approx(200)
    assert need.balancer_cpus == pytest.approx(1)
    assert need.link_bits_s == pytest.approx(8e9)
    # 18 nodes pull 400 MB each at 5 Gbit/s together.
    assert need.pull_s == pytest.approx(11.52)
    assert need.series == 72_000
    assert need.tightest == "balancer's network"
    assert need.shares[need.tightest] == pytest.approx(0.8)
    assert "| 10,000 | 144 |" in table([need])


def test_the_documented_plan_is_what_the_command_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (ROOT / "docs" / "capacity.md").read_text()
    command = "python -m benchmarks.capacity.plan --replica-rate 52.4 --cpu-ms 35"
    assert command in page
    assert plan(command.split()[3:]) == 0
    assert capsys.readouterr().out in page


def test_a_ramp_of_a_real_server_ends_in_a_plan_and_a_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needed(find_k6)
    server = Server(environment={"YOLOX_MODEL": ""})
    try:
        limits = ["--slo-ms", "10000", "--share", "0.5", "--first", "1", "--limit", "2"]
        short = ["--seconds", "2", "--warm-up", "1", "--load", "50", "--output", str(tmp_path)]
        assert main([server.url, *limits, *short]) == 0
    finally:
        server.close()
    shown = capsys.readouterr().out
    assert "greatest rate with 50.0% answered within 10000 ms" in shown
    assert "50 images/s" in shown
    assert "images per core-hour: " in shown
    assert (tmp_path / "capacity.png").read_bytes().startswith(b"\x89PNG")
