"""The effect of the settings: how CPUs are shared out, what is loaded, and what is warmed."""

import asyncio
import dataclasses
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.build import (
    engine_instances,
    letterbox_mode,
    load_engine,
    load_first,
    spans_of_engine,
    threads_of_engine,
    warm_the_rest,
)
from service.core.contract import ModelContract
from service.core.letterbox import fit_to_model, likely_sizes, promised_sizes
from service.core.suppress import DetectionOptions
from service.engine.base import CPU, CUDA, TENSORRT
from service.engine.onnx_cpu import OnnxCpuEngine
from service.engine.onnx_gpu import OnnxGpuEngine
from service.errors import StartupError
from service.http.app import create_app
from service.pipeline.stages import ImageSource
from service.settings import Settings
from support.engines import CONTRACT, CpuEngine, FakeEngine
from support.model_files import dynamic_model, loaded, model_file
from support.models import OneModel
from support.pictures import plain
from support.runtimes import PretendingRuntime, SilentlyFallingRuntime, use_runtime


@pytest.fixture
def cpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    count: int = request.param
    monkeypatch.setattr("service.cpus.usable_cpus", lambda: count)
    monkeypatch.setattr("service.build.usable_cpus", lambda: count)
    return count


def on_cpu(dynamic_size: bool = True) -> FakeEngine:
    spec = dataclasses.replace(CONTRACT.input, dynamic_size=dynamic_size)
    engine = FakeEngine(dataclasses.replace(CONTRACT, input=spec))
    engine.provider = CPU
    engine.on_cpu = True
    return engine


@pytest.mark.parametrize(
    ("cpus", "options", "instances", "threads", "spans"),
    [
        (1, {}, 1, 1, [1]),
        (2, {}, 2, 1, [1, 2]),
        (4, {}, 4, 1, [1, 4]),
        (8, {}, 8, 1, [1, 2, 8]),
        (12, {}, 12, 1, [1, 3, 12]),
        (64, {}, 64, 1, [1, 4, 16, 64]),
        (8, {"workers": 2}, 4, 1, [1, 2, 8]),
        (8, {"engine_instances": 2}, 2, 4, [1, 2]),
        (8, {"engine_threads": 2}, 4, 2, [1]),
        (2, {"engine_instances": 4}, 4, 1, [1, 2]),
        (8, {"engine_instances": 1}, 1, 8, [1]),
    ],
    indirect=["cpus"],
)
def test_cpus_are_shared_out_among_instances(
    cpus: int, options: Any, instances: int, threads: int, spans: list[int]
) -> None:
    settings = Settings(**options)
    assert engine_instances(settings, on_cpu()) == instances
    assert threads_of_engine(settings) == threads
    assert spans_of_engine(settings) == spans
    assert spans[-1] * threads <= cpus


@pytest.mark.parametrize("cpus", [8], indirect=True)
@pytest.mark.usefixtures("cpus")
def test_on_a_gpu_one_batch_is_copied_while_another_is_computed() -> None:
    assert engine_instances(Settings(), FakeEngine()) == 2


def test_rectangles_are_for_models_of_dynamic_size_on_a_cpu() -> None:
    assert letterbox_mode(Settings(), on_cpu()) == "rectangle"
    assert letterbox_mode(Settings(), on_cpu(dynamic_size=False)) == "square"
    assert letterbox_mode(Settings(), FakeEngine()) == "square"
    assert letterbox_mode(Settings(letterbox="square"), on_cpu()) == "square"
    assert letterbox_mode(Settings(letterbox="rectangle"), FakeEngine()) == "rectangle"


@pytest.fixture
def warmed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The (height, width) that engines are warmed with."""
    sizes: list[tuple[int, int]] = []
    warm = OnnxCpuEngine.warm

    def noted(engine: OnnxCpuEngine, size: tuple[int, int]) -> None:
        sizes.append(size)
        warm(engine, size)

    monkeypatch.setattr(OnnxCpuEngine, "warm", noted)
    return sizes


@pytest.mark.parametrize(("mode", "size"), [("square", (64, 96)), ("rectangle", (32, 96))])
def test_before_anybody_asks_the_smallest_size_runs_once_on_a_cpu(
    tmp_path: Path, warmed: list[tuple[int, int]], mode: Any, size: tuple[int, int]
) -> None:
    load_engine(Settings(model=dynamic_model(tmp_path), device="cpu", letterbox=mode))
    assert warmed == [size]


def test_a_gpu_runs_the_whole_size_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    monkeypatch.setattr(OnnxGpuEngine, "warm", lambda _, size: sizes.append(size))
    use_runtime(monkeypatch, PretendingRuntime())
    model = dynamic_model(tmp_path)
    load_engine(Settings(model=model, device="cuda", letterbox="rectangle", max_batch_size=1))
    assert sizes == [(64, 96)]


@pytest.mark.parametrize(("mode", "sizes"), [("square", 0), ("rectangle", 3)])
def test_sizes_that_start_cold_are_warmed_behind_the_start(
    tmp_path: Path, mode: Any, sizes: int
) -> None:
    settings = Settings(model=dynamic_model(tmp_path), letterbox=mode)
    contract = loaded(dynamic_model(tmp_path)).contract
    engine = ColdEngine(contract)
    asyncio.run(warm_the_rest(settings, engine))
    assert len(engine.warmed) == sizes
    assert set(engine.warmed) == set(promised_sizes(contract, mode)) - {(64, 96)}


def test_a_size_that_cannot_be_warmed_ends_the_warming_and_not_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(model=dynamic_model(tmp_path), letterbox="rectangle")
    engine = ColdEngine(loaded(dynamic_model(tmp_path)).contract, fails=True)

    with TestClient(create_app(settings, engine)) as client:
        while len(engine.warmed) < 1:
            time.sleep(0.01)
        assert client.get("/health/live").status_code == 200
    asyncio.run(warm_the_rest(settings, engine))
    assert "an input size cannot be warmed" in capsys.readouterr().err


class ColdEngine(CpuEngine):
    """Every size of it starts cold."""

    def __init__(self, contract: ModelContract, *, fails: bool = False) -> None:
        super().__init__(contract)
        self._fails = fails
        self.warmed: list[tuple[int, int]] = []

    def load(self) -> None:
        raise NotImplementedError

    def warm(self, size: tuple[int, int]) -> None:
        self.warmed.append(size)
        if self._fails:
            raise StartupError("no memory")

    def cold_sizes(self, sizes: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
        return sizes


@pytest.mark.parametrize(("mode", "warnings"), [("square", 0), ("rectangle", 1)])
def test_rectangles_on_cuda_are_warned_of(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mode: Any,
    warnings: int,
) -> None:
    use_runtime(monkeypatch, PretendingRuntime())
    model = dynamic_model(tmp_path)
    load_engine(Settings(model=model, device="cuda", letterbox=mode, max_batch_size=1))
    assert capsys.readouterr().err.count("at each change of shape") == warnings


def test_a_gpu_is_warmed_with_every_batch_that_it_will_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = PretendingRuntime()
    use_runtime(monkeypatch, runtime)
    engine = loaded(dynamic_model(tmp_path), device="cuda", max_batch=6)
    engine.warm((64, 64))
    assert [batch for _, batch in runtime.ran] == [1, 2, 4, 6]
    assert engine.cold_sizes([(64, 32)]) == [(64, 32)]


@pytest.mark.parametrize("least_side", [None, 64, 96])
def test_what_is_promised_is_what_letterboxes_make(least_side: int | None) -> None:
    spec = dataclasses.replace(CONTRACT.input, height=96, width=160, least_side=least_side)
    contract = dataclasses.replace(CONTRACT, input=spec)
    images = [
        np.zeros((height, width, 3), np.uint8)
        for height, width in itertools.product(range(8, 400, 24), repeat=2)
    ]
    for mode in ("square", "rectangle"):
        made = {fit_to_model(image, contract, mode)[0].shape[:2] for image in images}
        assert promised_sizes(contract, mode) == sorted(made)
        assert sorted(likely_sizes(contract, mode)) == sorted(made)


def test_the_likeliest_sizes_are_the_whole_one_and_those_of_photos() -> None:
    spec = dataclasses.replace(CONTRACT.input, height=416, width=416)
    contract = dataclasses.replace(CONTRACT, input=spec)
    whole, *photos = likely_sizes(contract, "rectangle")[:7]
    assert whole == (416, 416)
    assert photos == [(320, 416), (416, 320), (288, 416), (416, 288), (256, 416), (416, 256)]
    assert likely_sizes(contract, "square") == [(416, 416)]


@pytest.mark.parametrize("cpus", [8], indirect=True)
@pytest.mark.usefixtures("cpus")
def test_a_model_is_loaded_for_the_batches_and_cpus_of_the_settings(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    settings = Settings(model=path, device="cpu", max_batch_size=4, engine_instances=2)
    engine: Any = load_engine(settings)
    assert (engine.max_batch, engine.spans) == (4, (1, 2))
    threads = [s.get_session_options().intra_op_num_threads for s in engine._sessions.values()]
    assert threads == [4, 8]


def test_a_gpu_is_told_what_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = SilentlyFallingRuntime()
    runtime.available = [TENSORRT, CUDA, CPU]
    use_runtime(monkeypatch, runtime)
    settings = Settings(
        model=model_file(tmp_path),
        device="tensorrt",
        max_batch_size=8,
        gpu_memory_limit_mb=512,
        tensorrt_cache=tmp_path / "cache",
    )
    with pytest.raises(StartupError, match="would run on CPUExecutionProvider"):
        load_engine(settings)
    asked = dict(runtime.asked)
    assert asked[TENSORRT]["trt_engine_cache_path"] == str(tmp_path / "cache")
    assert asked[TENSORRT]["trt_profile_max_shapes"] == "images:8x3x64x64"
    assert asked[CUDA]["gpu_mem_limit"] == str(512 * 2**20)


def test_an_image_waits_for_company_as_long_as_set() -> None:
    async def main() -> None:
        server = OneModel(Settings(max_batch_delay_ms=50), FakeEngine())
        await server.start()
        deadline, detect_all = time.monotonic() + 9, server.detector.detect_all
        (image,) = await detect_all([ImageSource(plain())], DetectionOptions(), deadline)
        assert image.seconds.queue >= 0.05
        await server.stop()

    asyncio.run(main())


def test_a_default_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    with pytest.raises(StartupError, match=r"no model 'foo'.* is 'tiny'; name their folder"):
        load_first(Settings(model=path, default_model="foo", device="cpu"))
    for name in ("tiny", "", None):
        settings = Settings(model=path, default_model=name, device="cpu")
        assert load_first(settings)[1].contract.name == "tiny"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (plain(), "a PNG image"),
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        (b"PK\3\4", "a PyTorch checkpoint .*: yolox-serve export"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
        (b"<!doctype html>", "a web page"),
        (b"some text", "of another kind"),
        (b"", "empty"),
    ],
)
def test_a_file_that_is_no_model_is_told_before_anything_is_measured(
    tmp_path: Path, content: bytes, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(
        StartupError, match=rf"photo.jpg cannot be loaded: it is {kind}.*no ONNX file"
    ):
        load_engine(Settings(model=path))
    assert capsys.readouterr().err == ""
