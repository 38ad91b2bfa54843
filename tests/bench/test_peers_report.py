"""The comparison with other servers reports what its runs say, and where they were made."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.peers.contenders import alone, one_per_cpu, ours, peers
from benchmarks.peers.host.environments import pins
from benchmarks.peers.host.machine import describe
from benchmarks.peers.outcome.boxes import EXACT, Agreement
from benchmarks.peers.outcome.plot import draw_latencies
from benchmarks.peers.outcome.report import MeasuredModel, Report, to_markdown
from benchmarks.peers.outcome.report import to_json as report_to_json
from benchmarks.peers.outcome.results import (
    ALL_CPUS,
    ALONE,
    ONE_THREAD,
    OURS,
    PLAIN,
    WIDE,
    Goal,
    Run,
    goals,
    typical,
)
from benchmarks.peers.outcome.table import goals_list, remarks, results_table, shown_loads
from benchmarks.peers.served import Engine
from benchmarks.peers.session import quietest


def run(contender: str, rate: float, *, turn: int = 0, connections: int = 8, p50: float = 5) -> Run:
    """A run of one second."""
    return Run(
        contender=contender,
        round=turn,
        connections=connections,
        requests=int(rate),
        seconds=1.0,
        errors=0,
        p50_ms=p50,
        p90_ms=2 * p50,
        p99_ms=3 * p50,
        cpu_ms=10.0,
        memory_mib=100.0,
        foreign_share=0.0,
    )


def goal(runs: list[Run], beginning: str) -> Goal:
    (found,) = [each for each in goals(runs) if each.text.startswith(beginning)]
    return found


# Medians, ratios, goals


def test_a_ratio_is_that_of_a_round_and_not_of_medians() -> None:
    # The machine was half as fast in the second round, and the best peer not always the same.
    runs = [run(OURS, 200), run("a", 100), run("b", 80)]
    runs += [run(OURS, 100, turn=1), run("a", 40, turn=1), run("b", 50, turn=1)]
    by_name = {entry.contender: entry for entry in typical(runs)}
    assert by_name[OURS].of_best_peer == pytest.approx(2.0)
    assert by_name["a"].of_best_peer == pytest.approx((1 + 0.8) / 2)
    assert by_name[OURS].rate == 150


def test_failed_requests_do_not_count_for_the_rate() -> None:
    failing = replace(run("a", 100), errors=60)
    (entry,) = typical([failing])
    assert (entry.rate, entry.errors) == (40, 60)


def test_the_best_peer_is_neither_ours_nor_a_loop() -> None:
    runs = [run(OURS, 300), run(ALONE, 200), run(ALL_CPUS, 900), run("a", 100)]
    (first, *_) = typical(runs)
    assert first.of_best_peer == pytest.approx(3.0)


def test_a_disturbed_run_is_repeated_until_it_is_not() -> None:
    shares = iter([0.3, 0.01, 0.0])
    best = quietest(lambda: replace(RUNS[0], foreign_share=next(shares)), repeats=2)
    assert best.foreign_share == 0.01
    assert next(shares) == 0.0


def test_of_disturbed_runs_the_least_disturbed_counts() -> None:
    shares = iter([0.3, 0.2, 0.4])
    best = quietest(lambda: replace(RUNS[0], foreign_share=next(shares)), repeats=2)
    assert best.foreign_share == 0.2


def test_memory_is_the_largest_and_latency_the_median() -> None:
    runs = [replace(run("a", 1, turn=i, p50=10 * i), memory_mib=i) for i in range(3)]
    (entry,) = typical(runs)
    assert (entry.memory_mib, entry.p50_ms, entry.p99_ms) == (2, 10, 30)


def test_goals_compare_with_the_best_peer_and_the_loops_of_the_same_round() -> None:
    runs = [run(OURS, 180), run("a", 100), run(ALL_CPUS, 200, connections=2)]
    lead, share = goal(runs, "rate at c=8 over the best"), goal(runs, "rate at c=8 over that of")
    assert (lead.value, lead.met) == (pytest.approx(1.8), True)
    assert (share.value, share.met) == (pytest.approx(0.9), False)


def test_overhead_is_over_the_quicker_loop() -> None:
    runs = [run(OURS, 9, connections=1, p50=11.0)]
    runs += [run(ONE_THREAD, 9, connections=1, p50=15.0), run(WIDE, 9, connections=1, p50=9.0)]
    overhead = goal(runs, "p50 at c=1")
    assert (overhead.value, overhead.met) == (pytest.approx(2.0), False)


def test_goals_without_numbers_are_left_out() -> None:
    assert goals([run("a", 100)]) == []


def test_loops_on_plain_onnx_runtime_are_compared_without_a_goal() -> None:
    plain = run(PLAIN, 90, connections=2)
    found = goal([run(OURS, 180), plain], "rate at c=8 over that of loops on plain")
    assert (found.value, found.limit, found.met) == (pytest.approx(2.0), None, None)
    assert "2.00 (no goal)" in goals_list([run(OURS, 180), plain])


def test_goals_are_about_the_largest_load_where_the_usual_ones_are_missing() -> None:
    runs = [run(OURS, 180, connections=c) for c in (1, 2, 4)]
    runs += [run("a", 100, connections=c) for c in (1, 2, 4)]
    assert [each.text for each in goals(runs)] == ["rate at c=4 over the best peer's"]
    assert goals([each for each in runs if each.connections == 1]) == []


# Table, report, plot

OPENVINO = Engine("OpenVINO", name="openvino", precision="bf16", threads="1")
ON_CPU = Engine("CPUExecutionProvider", precision="f32")
TITLES = {OURS: "ours", "a": "A server", ONE_THREAD: "loop", ALL_CPUS: "loops"}
RUNS = [
    *(run(OURS, 150 + c, connections=c) for c in (1, 8, 32)),
    *(run("a", 100, connections=c) for c in (1, 8, 32)),
    run(ONE_THREAD, 70, connections=1, p50=4),
    run(ALL_CPUS, 170, connections=2, p50=6),
]


def rows(table: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {row[0]: row[1:] for row in cells}


def test_the_table_has_rates_ratios_and_latencies_of_each_load() -> None:
    table = rows(results_table(RUNS, TITLES))
    assert table["ours"][:4] == ["151.0 (1.51)", "158.0 (1.58)", "182.0 (1.82)", "5.0 / 15.0"]
    assert table["A server"][0] == "100.0 (1.00)"
    assert table["ours"][-2:] == ["10.0", "100"]


@pytest.mark.parametrize(
    ("measured", "shown"), [((1, 2, 8, 32), [1, 8, 32]), ((1, 2, 4), [1, 4]), ((1,), [1])]
)
def test_the_table_has_the_usual_loads_and_those_that_goals_are_about(
    measured: tuple[int, ...], shown: list[int]
) -> None:
    assert shown_loads([run(OURS, 100, connections=c) for c in measured]) == shown


def test_a_loop_stands_where_it_is_a_limit() -> None:
    table = rows(results_table(RUNS, TITLES))
    assert table["loop"][:6] == ["70.0", "", "", "4.0 / 12.0", "", ""]
    assert table["loops"][:6] == ["", "170.0", "170.0", "", "", ""]


def test_errors_and_disturbed_runs_are_told() -> None:
    assert remarks(RUNS) == []
    told = remarks([replace(RUNS[0], errors=3), replace(RUNS[1], foreign_share=0.2)])
    assert [line.split()[:3] for line in told] == [
        ["ours", "failed", "3"],
        ["others", "took", "more"],
    ]


def report() -> Report:
    contenders = (ours("model.onnx", one_per_cpu(2)), alone("model.onnx"), *peers(2))
    return Report(
        machine=describe(),
        model=MeasuredModel("t.onnx", "tiny", "1", 64, 96, True, ["sigmoids inside"], 1e-7),
        engines={OURS: [OPENVINO, OPENVINO], ALONE: [ON_CPU]},
        photos=3,
        photo_kb=150,
        seconds=1,
        rounds=1,
        letterbox="square",
        titles=TITLES,
        contenders=contenders,
        packages={name: pins(name) for name in ("litserve", "ray")},
        agreements={"a": Agreement(EXACT, 7, 0.99, 0.001, ())},
        precisions={OURS: 0.25, "a": 0.24},
        runs=RUNS,
    )


def test_the_report_says_how_everything_was_set_up() -> None:
    text = to_markdown(report())
    assert all(each.settings in text for each in report().contenders)
    assert "litserve==" in text
    assert "onnxruntime==" in text
    assert "--workers 2" in text
    assert "7 boxes" in text
    assert "ours 0.2500, A server 0.2400" in text


def test_the_report_names_model_cpu_and_engine() -> None:
    machine = replace(describe(), cpu="Fast 9", cpus=2, flags=("amx_bf16",))
    text = to_markdown(replace(report(), machine=machine))
    assert "- Model: t.onnx (tiny 1), 64x96 or other sizes" in text
    assert "- CPU: 2 x Fast 9 (amx_bf16)" in text
    assert "- Engine of ours and of the loops: openvino (OpenVINO), bf16, threads: 1\n" in text
    assert "- Engine of ours, one process: ONNX Runtime (CPUExecutionProvider), f32\n" in text
    assert "their file has sigmoids inside, and rows that differ by 1.0e-07 at most" in text
    assert "| t.onnx, 64x96 | req/s c=1 |" in text
    plain = to_markdown(replace(report(), machine=replace(machine, flags=())))
    assert "(neither avx512_bf16 nor amx_bf16)" in plain


def test_the_json_names_model_cpu_and_engine() -> None:
    content = json.loads(report_to_json(report()))
    assert content["model"] | {"file": "t.onnx", "version": "1", "width": 96} == content["model"]
    assert content["engines"][OURS][0]["precision"] == "bf16"
    assert content["machine"].keys() >= {"cpu", "flags"}


def test_rounds_on_different_engines_are_told() -> None:
    text = to_markdown(replace(report(), engines={OURS: [OPENVINO, ON_CPU, OPENVINO]}))
    assert "threads: 1; in other rounds ONNX Runtime (CPUExecutionProvider), f32\n" in text


def test_boxes_that_nobody_finds_are_no_proof() -> None:
    nothing = {"a": Agreement(EXACT, 0, 1.0, 0.0, ())}
    assert "shows little" in to_markdown(replace(report(), agreements=nothing))


def test_a_report_of_boxes_alone_has_no_table() -> None:
    text = to_markdown(replace(report(), runs=()))
    assert "req/s" not in text
    assert "7 boxes" in text


def test_the_json_has_every_run_and_what_follows_from_them() -> None:
    content = json.loads(report_to_json(report()))
    assert [Run(**entry) for entry in content["runs"]] == RUNS
    assert {entry["contender"] for entry in content["typical"]} == set(TITLES)
    assert content["goals"][0]["value"] == pytest.approx(1.58)


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    draw_latencies(RUNS, TITLES, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.width > 1000
