"""The comparison with other servers says what its runs say, and holds boxes to one another."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.peers.contenders import alone, one_per_cpu, ours, peers
from benchmarks.peers.host import processes
from benchmarks.peers.host.environments import pins
from benchmarks.peers.host.load import read_outcome, write_photo_list
from benchmarks.peers.host.machine import CpuTimes, describe, foreign_share
from benchmarks.peers.inputs.preparing import find_photos, letterbox_of, read_contract
from benchmarks.peers.limit import OPTIONS, loops
from benchmarks.peers.official import OfficialDetector, to_json
from benchmarks.peers.outcome.boxes import Agreement, Box, average_precision, compare, read_answer
from benchmarks.peers.outcome.plot import draw_latencies
from benchmarks.peers.outcome.report import Report, to_markdown
from benchmarks.peers.outcome.report import to_json as report_to_json
from benchmarks.peers.outcome.results import (
    ALL_CPUS,
    ALONE,
    ONE_THREAD,
    OURS,
    WIDE,
    Goal,
    Run,
    goals,
    typical,
)
from benchmarks.peers.outcome.table import remarks, results_table
from benchmarks.peers.session import check_boxes, quietest
from model_export.errors import ModelExportError
from model_export.graphs.onnx_file import save_with_contract
from model_export.measure.coco import make_coco_set
from service.core.contract import InputSpec, ModelContract
from service.core.letterbox import letterbox
from service.core.postprocess import find_objects
from service.engine.onnx_engine import OnnxEngine
from support.onnx_models import tiny_yolox_model
from support.pictures import encode, photo_like

NAMES = ("red", "green", "blue")
BOX = Box(1, 0.9, (10.0, 10.0, 50.0, 50.0))


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


# Table, report, plot

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
        model="tiny 1",
        photos=3,
        photo_kb=150,
        seconds=1,
        rounds=1,
        letterbox="square",
        titles=TITLES,
        contenders=contenders,
        packages={name: pins(name) for name in ("litserve", "ray")},
        agreements={"a": Agreement(7, 0.99, 0.001, ())},
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


# Boxes


def test_both_forms_of_answers_say_the_same() -> None:
    corners = dict(zip(("x1", "y1", "x2", "y2"), BOX.box_xyxy, strict=True))
    mine = {"results": [{"detections": [{"class_id": 1, "score": 0.9, "box": corners}]}]}
    theirs = {"detections": [{"class_id": 1, "score": 0.9, "box": list(BOX.box_xyxy)}]}
    assert read_answer(json.dumps(mine).encode()) == [BOX]
    assert read_answer(json.dumps(theirs).encode()) == [BOX]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"results": []}', b'{"detections": [{"class_id": 1}]}']
)
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(ModelExportError, match="no answer of a detector"):
        read_answer(body)


def test_equal_boxes_agree() -> None:
    near = replace(BOX, score=0.899, box_xyxy=(10.0, 10.0, 50.0, 50.4))
    agreement = compare({"p": [BOX]}, {"p": [near]})
    assert (agreement.compared, agreement.differences) == (2, ())
    assert agreement.least_iou == pytest.approx(40 / 40.4, abs=1e-4)
    assert agreement.most_score_gap == pytest.approx(0.001)


@pytest.mark.parametrize(
    "other",
    [
        [],
        [replace(BOX, class_id=2)],
        [replace(BOX, box_xyxy=(10.0, 10.0, 50.0, 54.0))],
        [replace(BOX, score=0.8)],
        [BOX, replace(BOX, box_xyxy=(100.0, 10.0, 150.0, 50.0))],
    ],
    ids=["missing", "class", "place", "score", "more"],
)
def test_any_difference_is_seen(other: list[Box]) -> None:
    assert compare({"p": [BOX]}, {"p": other}).differences


def test_boxes_close_to_the_confidence_may_be_missing() -> None:
    assert not compare({"p": [replace(BOX, score=0.31)]}, {"p": []}).differences


def test_a_contender_that_finds_something_else_is_named() -> None:
    with pytest.raises(ModelExportError, match="litserve finds other boxes"):
        check_boxes({"p": [BOX]}, {"mosec": {"p": [BOX]}, "litserve": {"p": []}})


def test_precision_of_perfect_boxes_is_one() -> None:
    truth = {"image_id": 7, "category_id": 3, "bbox": [10.0, 10.0, 40.0, 40.0]}
    coco = make_coco_set({7: Path("p.jpg")}, {3: "green"}, [truth])
    assert average_precision(coco, NAMES, {7: [BOX]}) == pytest.approx(1.0)
    assert average_precision(coco, NAMES, {7: [replace(BOX, class_id=0)]}) == 0
    with pytest.raises(ModelExportError, match="none of the model's classes"):
        average_precision(coco, ("cat", "dog", "cow"), {7: [BOX]})


def tiny_model(folder: Path, version: str = "1", **changes: Any) -> Path:
    fields: dict[str, Any] = {"name": "images", "height": 64, "width": 64, "layout": "NCHW"}
    spec = InputSpec(**(fields | {"dtype": "float32"} | changes))
    contract = ModelContract("tiny", version, spec, NAMES, score_activation="probabilities")
    model = tiny_yolox_model(activation="probabilities", objectness_logit=-3.0)
    save_with_contract(model, contract, folder / "tiny.onnx")
    return folder / "tiny.onnx"


@pytest.mark.parametrize(("width", "height"), [(100, 60), (64, 64), (37, 90)])
def test_the_official_pipeline_finds_what_the_service_does(
    tmp_path: Path, width: int, height: int
) -> None:
    model = tiny_model(tmp_path)
    engine = OnnxEngine(model, device="cpu")
    engine.load()
    official = OfficialDetector(model, height=64, width=64, threads=1)
    pictures = [photo_like(width, height, seed) for seed in range(5)]
    answers = official.detect([encode(pixels) for pixels in pictures])
    mine, theirs = {}, {}
    for i, pixels in enumerate(pictures):
        canvas, way_back = letterbox(np.ascontiguousarray(pixels[:, :, ::-1]), 64, 64)
        found = find_objects(engine.infer(canvas[None])[0], way_back, engine.contract, OPTIONS)
        rows = zip(found.class_ids, found.scores, found.boxes_xyxy.tolist(), strict=True)
        mine[str(i)] = [Box(int(a), float(b), (c[0], c[1], c[2], c[3])) for a, b, c in rows]
        theirs[str(i)] = read_answer(to_json(answers[i]))
    agreement = compare(mine, theirs)
    assert agreement.compared > 10
    assert agreement.differences == ()
    assert agreement.least_iou > 0.999


def test_the_official_pipeline_refuses_what_is_no_image(tmp_path: Path) -> None:
    official = OfficialDetector(tiny_model(tmp_path), height=64, width=64, threads=1)
    with pytest.raises(ValueError, match="cannot be decoded"):
        official.detect([b"no image"])


# What goes in, and what runs


def test_a_model_of_another_form_is_refused_with_all_reasons(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    assert read_contract(model, model).name == "tiny"
    with pytest.raises(ModelExportError, match="no model file"):
        read_contract(model, tmp_path / "missing.onnx")
    tiny_model(tmp_path, color_order="RGB", pad_value=0)
    with pytest.raises(ModelExportError, match="BGR images, padding of 114"):
        read_contract(model, model)


def test_the_peers_and_ours_run_the_same_weights(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("ours", "peers")]
    for folder in folders:
        folder.mkdir()
    ours = tiny_model(folders[0], version="2")
    with pytest.raises(ModelExportError, match="adopt both of one file"):
        read_contract(tiny_model(folders[1]), ours)


def test_rectangles_are_what_ours_does_with_open_sizes(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    fixed = read_contract(model, model)
    free = replace(fixed, input=replace(fixed.input, dynamic_size=True))
    assert letterbox_of([], fixed) == "square"
    assert letterbox_of([], free) == "rectangle"
    assert letterbox_of(["--letterbox", "square"], free) == "square"


def test_only_jpegs_are_sent_and_always_in_the_same_order(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.JPEG", "c.png", "d.txt"):
        (tmp_path / name).touch()
    assert [photo.name for photo in find_photos(tmp_path)] == ["a.JPEG", "b.jpg"]
    assert find_photos([tmp_path / "b.jpg", tmp_path / "c.png"]) == [tmp_path / "b.jpg"]
    with pytest.raises(ModelExportError, match="no JPEG files"):
        find_photos([])
    with pytest.raises(ModelExportError, match="no folder"):
        find_photos(tmp_path / "missing")


def test_the_photo_list_has_whole_paths(tmp_path: Path) -> None:
    listed = write_photo_list([tmp_path / "a.jpg", tmp_path / "b.jpg"], tmp_path / "list.txt")
    assert listed.read_text() == f"{tmp_path}/a.jpg\n{tmp_path}/b.jpg\n"


def test_the_outcome_is_the_last_line_that_wrk_prints() -> None:
    line = {"requests": 9, "seconds": 1.5, "errors": 1, "p50_ms": 1, "p90_ms": 2, "p99_ms": 3}
    outcome = read_outcome(f"Running 1s test\n  Requests/sec: 9\n\n{json.dumps(line)}\n")
    assert (outcome.requests, outcome.errors, outcome.p99_ms) == (9, 1, 3)
    for nonsense in ("", "Running 1s test\n", '{"requests": 9}\n'):
        with pytest.raises(ModelExportError, match="did not say how it went"):
            read_outcome(nonsense)


def test_each_peer_has_pinned_requirements_and_the_same_runtime() -> None:
    environments = {peer.environment for peer in peers(4)}
    versions = {pin for name in environments if name for pin in pins(name) if "onnxruntime" in pin}
    assert len(versions) == 1
    assert all("==" in pin for name in environments if name for pin in pins(name))


def test_every_peer_fills_the_machine_with_threads_of_one_runtime() -> None:
    assert {peer.workers * peer.threads for peer in peers(4)} == {4}
    assert max(loop.processes * loop.threads for loop in loops(4)) == 4
    assert len({peer.name for peer in peers(4)}) == len(peers(4))


def test_foreign_share_is_what_neither_we_nor_the_contender_used() -> None:
    before, after = CpuTimes(10, 100, 1), CpuTimes(17, 120, 2)
    assert foreign_share(before, after, 4.0) == pytest.approx(0.1)
    assert foreign_share(before, after, 9.0) == 0
    assert foreign_share(before, before, 0.0) == 0


SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])
http.server.HTTPServer(("127.0.0.1", int(os.environ["PEER_PORT"])), Handler).serve_forever()
"""
# Like a framework whose daemons leave their parent's session.
DAEMON = "import subprocess, sys; subprocess.run(sys.argv[1:], start_new_session=True)"


def test_a_server_is_asked_weighed_and_ended_with_its_daemons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_TIMEOUT_S", 0.1)
    command = [sys.executable, "-c", DAEMON, sys.executable, "-c", SERVER]
    server = processes.RunningServer(command, {}, folder=tmp_path, log=tmp_path / "daemon.log")
    try:
        server.wait_until_it_answers("/detect", b"photo")
        assert server.post("/detect", b"photo") == (200, b"otohp")
        assert server.memory_mib() > 5
        assert server.cpu_seconds() > 0
    finally:
        server.stop()
    assert server.memory_mib() == 0
    # Its memory is gone a moment before its socket: refused, or cut off.
    with pytest.raises(ConnectionError):
        server.post("/detect", b"photo")


def test_a_server_that_ends_is_told_of_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    server = processes.RunningServer(command, {}, folder=tmp_path, log=tmp_path / "a.log")
    try:
        with pytest.raises(ModelExportError, match=r"a does not answer(.|\n)*no such model"):
            server.wait_until_it_answers("/detect", b"")
    finally:
        server.stop()
