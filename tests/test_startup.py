"""How the CPUs are shared out, and which letterbox is the default."""

import dataclasses
from typing import Any

import pytest

from engines import CONTRACT, FakeEngine
from service.runtime import CPU
from service.settings import Settings
from service.startup import engine_instances, letterbox_mode, spans_of_engine, threads_of_engine


@pytest.fixture
def cpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    count: int = request.param
    monkeypatch.setattr("service.startup.cpus_of_process", lambda workers: count // workers)
    return count


def on_cpu(dynamic_size: bool = True) -> FakeEngine:
    spec = dataclasses.replace(CONTRACT.input, dynamic_size=dynamic_size)
    engine = FakeEngine(dataclasses.replace(CONTRACT, input=spec))
    engine.provider = CPU
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
        (8, {"workers": 2}, 4, 1, [1, 4]),
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
