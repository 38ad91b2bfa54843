"""The loops without HTTP run the engine that the server states, from the server's own parts."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from benchmarks.peers import limit, loops, session
from benchmarks.peers.contenders import alone, ours
from benchmarks.peers.host.load import Load, write_photo_list
from benchmarks.peers.limit import Turns, loop_settings, make_detector
from benchmarks.peers.loops import Loop, run_loop
from benchmarks.peers.outcome.results import ALONE, OURS, Run
from benchmarks.peers.served import Engine, ask_engine, read_engine
from benchmarks.peers.session import Plan, measure
from model_export.errors import ModelExportError
from service.settings import Settings
from support.engines import CpuEngine
from support.peers_models import tiny_model_file
from support.pictures import encode, photo_like, plain

ON_CPU = Engine("CPUExecutionProvider")
OPENVINO = Engine("OpenVINO", name="openvino", precision="bf16", threads="1")


# What the server states


def test_engine_precision_and_threads_are_read_where_the_server_states_them() -> None:
    stated = {"provider": "OpenVINO", "engine": "openvino", "precision": "bf16", "threads": 1}
    assert read_engine(json.dumps(stated).encode()) == OPENVINO
    assert str(OPENVINO) == "openvino (OpenVINO), bf16, threads: 1"
    nested = {"provider": "p", "engine": {"provider": "OpenVINO", "precision": "f32", "threads": 2}}
    found = read_engine(json.dumps(nested).encode())
    assert found == Engine("OpenVINO", precision="f32", threads="2")
    assert str(found) == "OpenVINO, f32, threads: 2"
    assert read_engine(b'{"provider": "CPUExecutionProvider"}') == ON_CPU
    assert str(ON_CPU) == "ONNX Runtime (CPUExecutionProvider), precision not stated"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"null"])
def test_a_server_that_names_no_provider_is_refused(body: bytes) -> None:
    with pytest.raises(ModelExportError, match="names no provider"):
        read_engine(body)


@pytest.mark.parametrize(
    ("engine", "device"),
    [
        (ON_CPU, "cpu"),
        (Engine("OpenVINO"), "openvino"),
        (Engine("OpenVINOExecutionProvider"), "openvino"),
        (Engine("CPU", name="openvino"), "openvino"),
        (Engine("CUDAExecutionProvider"), "cuda"),
        (Engine("TensorrtExecutionProvider"), "tensorrt"),
    ],
)
def test_each_engine_can_be_asked_for_by_its_device(engine: Engine, device: str) -> None:
    assert engine.device == device


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (Engine("OpenVINO"), False),
        (Engine("OpenVINO", precision="bf16", threads="2"), False),
        (Engine("OpenVINO", precision="f32"), True),
        (ON_CPU, True),
    ],
)
def test_engines_differ_in_what_both_state(other: Engine, *, differs: bool) -> None:
    assert OPENVINO.differs_from(other) is differs
    assert other.differs_from(OPENVINO) is differs


class Served:
    """A server that answers any GET alike."""

    port = 0

    def __init__(self, status: int = 200, body: bytes = b'{"provider": "OpenVINO"}') -> None:
        self.answer = status, body

    def get(self, path: str) -> tuple[int, bytes]:
        assert path == "/model"
        return self.answer


def test_the_engine_is_what_get_model_says() -> None:
    assert ask_engine(Served()) == Engine("OpenVINO")
    with pytest.raises(ModelExportError, match="answered with 401"):
        ask_engine(Served(401))


# What a loop is made of


def test_a_loop_has_the_servers_settings_for_one_engine_of_its_own(tmp_path: Path) -> None:
    flags = ["--workers", "4", "--letterbox", "square", "--max-image-pixels", "5000"]
    settings = loop_settings(flags, tmp_path / "m.onnx", "openvino", threads=2, processes=3)
    assert (settings.device, settings.letterbox) == ("openvino", "square")
    assert (settings.model, settings.max_image_pixels) == (tmp_path / "m.onnx", 5000)
    assert (settings.engine_instances, settings.engine_threads, settings.workers) == (1, 2, 3)


def test_a_loop_takes_its_engine_from_the_servers_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, asked = CpuEngine(), []

    def load_engine(settings: Settings) -> CpuEngine:
        asked.append(settings)
        return engine

    engine.precision = "bf16"
    monkeypatch.setattr(limit, "load_engine", load_engine)
    settings = Settings(device="openvino")
    detect, stated = make_detector(settings, plain=False)
    assert stated == Engine(engine.provider, precision="bf16")
    assert [detect(plain()), detect(encode(photo_like(640, 320)))] == [1, 1]
    # One image a call, in the rectangles that the server makes.
    assert engine.batches == [(1, 64, 64, 3), (1, 32, 64, 3)]
    assert asked == [settings]


@pytest.mark.parametrize("batch", [None, 2])
def test_a_plain_loop_finds_the_same_without_the_servers_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int | None
) -> None:
    model = tiny_model_file(tmp_path, dtype="uint8", layout="NHWC", batch=batch)
    settings = Settings(model=model, device="cpu", engine_threads=1, engine_instances=1)
    pictures = [encode(photo_like(100, 60, seed)) for seed in range(3)]
    own, _ = make_detector(settings, plain=False)
    expected = [own(picture) for picture in pictures]
    monkeypatch.delattr(limit, "load_engine")
    detect, stated = make_detector(settings, plain=True)
    assert stated == Engine("CPUExecutionProvider", precision="f32")
    assert [detect(picture) for picture in pictures] == expected
    assert sum(expected) > 0


# How loops are measured


@pytest.mark.parametrize("is_plain", [False, True])
def test_a_loop_runs_in_processes_of_its_own(tmp_path: Path, *, is_plain: bool) -> None:
    model = tiny_model_file(tmp_path)
    photo = tmp_path / "a.jpg"
    photo.write_bytes(encode(photo_like(64, 64), "JPEG"))
    load = Load(write_photo_list([photo], tmp_path / "photos.txt"), seconds=0.2)
    loop = Loop("loop", "some loops", processes=2, threads=1, plain=is_plain)
    flags = ["--workers", "2"]
    run = run_loop(loop, model, flags, ON_CPU, load, warm_up=0.1, turn=3)
    assert (run.contender, run.round, run.connections, run.errors) == ("loop", 3, 2, 0)
    assert run.requests >= 2
    assert run.p50_ms <= run.p99_ms < 1000 * run.seconds
    assert run.memory_mib > 10


def run_fake_loop(monkeypatch: pytest.MonkeyPatch, ran: Engine, *, is_plain: bool) -> Run:
    """Measure a loop whose process says that it ran this engine, beside a server on OpenVINO."""
    told = json.dumps([asdict(Turns(ran, [1.0, 2.0], 0.003, 0.002, 50.0))])
    commands = []

    def run(command: list[str], **_: Any) -> CompletedProcess[str]:
        commands.append(command)
        return CompletedProcess(command, 0, stdout=f"a library's greeting\n{told}\n", stderr="")

    monkeypatch.setattr(loops.subprocess, "run", run)
    loop = Loop("loop", "some loop", 1, 2, plain=is_plain)
    flags, load = ["--workers", "2"], Load(Path("l"), 1)
    measured = run_loop(loop, Path("m"), flags, OPENVINO, load, warm_up=7, turn=0)
    assert commands[0][commands[0].index("--warm-up") + 1] == "7"
    assert ("--plain" in commands[0]) is is_plain
    assert commands[0][commands[0].index("--device") + 1] == "openvino"
    assert commands[0][-3:] == ["--", "--workers", "2"]
    return measured


def test_a_loop_on_another_engine_than_the_server_stops_the_comparison(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    same = Engine("OpenVINO", precision="bf16")
    assert run_fake_loop(monkeypatch, same, is_plain=False).requests == 2
    for other in (ON_CPU, Engine("OpenVINO", precision="f32")):
        with pytest.raises(ModelExportError, match=r"some loop ran .* and the server openvino"):
            run_fake_loop(monkeypatch, other, is_plain=False)


def test_a_plain_loop_may_run_beside_a_server_on_another_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run_fake_loop(monkeypatch, ON_CPU, is_plain=True).requests == 2


def test_loops_run_behind_our_server_with_the_engine_of_that_round(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    happened: list[tuple[str, str]] = []
    # Ours, one process; then, in the second round, the other way round.
    engines = iter([OPENVINO, ON_CPU, ON_CPU, ON_CPU])

    @contextlib.contextmanager
    def serving(*_: object) -> Iterator[Served]:
        yield Served()
        happened.append(("server", "ends"))

    def runs_of(contender: Any, *_: object) -> Iterator[Run]:
        happened.append(("server", contender.name))
        return iter(())

    def loop_runs(
        loop: Loop, model: Path, flags: list[str], engine: Engine, load: Load, **options: float
    ) -> Run:
        assert options["warm_up"] == 3
        happened.append((loop.name, engine.device))
        turn = int(options["turn"])
        return Run(loop.name, turn, 1, 1, 1.0, 0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0)

    monkeypatch.setattr(session, "serving", serving)
    monkeypatch.setattr(session, "_runs_of", runs_of)
    monkeypatch.setattr(session, "run_loop", loop_runs)
    monkeypatch.setattr(session, "ask_engine", lambda _: next(engines))
    plan = Plan(tmp_path, tmp_path, [], [], tmp_path, [1], 1, 3, 2, 0, {}, tmp_path)
    contenders = [ours("m", []), alone("m")]
    measured = measure(contenders, [Loop("loop", "loop", 1, 1)], plan, lambda _: None)
    first = [("server", OURS), ("server", "ends"), ("loop", "openvino")]
    second = [("server", OURS), ("server", "ends"), ("loop", "cpu")]
    other = [("server", ALONE), ("server", "ends")]
    assert happened == [*first, *other, *other, *second]
    assert measured.engines == {OURS: [OPENVINO, ON_CPU], ALONE: [ON_CPU, ON_CPU]}
    assert [run.round for run in measured.runs] == [0, 1]
