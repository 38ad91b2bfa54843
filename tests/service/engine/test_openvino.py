"""OpenVINO's provider; its plugin has wheels for x86-64 alone."""

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from service.build import engine_instances, letterbox_mode, load_engine, on_one_thread
from service.engine.onnx_engine import CpuShares, OnnxEngine
from service.engine.onnx_sessions import CPU
from service.engine.openvino import OPENVINO, add_openvino, openvino_cpu, openvino_options
from service.errors import StartupError
from service.settings import Settings
from support.model_files import IMAGES, dynamic_model, loaded, model_file
from support.onnx_models import tiny_yolox_model
from support.project import ROOT
from support.servers import Server

needs_plugin = pytest.mark.skipif(
    find_spec("onnxruntime_ep_openvino") is None, reason="onnxruntime-ep-openvino is not installed"
)
# bfloat16 keeps 8 bits of what is added up to logits between -10 and 10.
ATOL = 0.06
JPEG = {"Content-Type": "image/jpeg"}


@needs_plugin
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_rows_are_those_of_the_cpu_provider(tmp_path: Path, layout: Any, dtype: Any) -> None:
    path = model_file(
        tmp_path, tiny_yolox_model(dtype=dtype, layout=layout), dtype=dtype, layout=layout
    )
    engine = loaded(path, device="openvino")
    assert engine.provider == engine.wanted_provider == OPENVINO
    raw = engine.infer(IMAGES)
    assert raw.shape == (3, engine.contract.num_cells(64, 64), 8)
    np.testing.assert_allclose(raw, loaded(path).infer(IMAGES), atol=ATOL, rtol=0.02)


@needs_plugin
def test_threads_and_spans_share_one_engine(tmp_path: Path) -> None:
    path = dynamic_model(tmp_path)
    engine = loaded(path, device="openvino", shares=CpuShares(1, 2, [1, 2]))
    assert engine.spans == (1, 2)
    sizes = [(64, 96), (64, 32), (32, 96)]
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes * 8]
    reference = loaded(path)
    expected = [reference.infer([image]) for image in images]
    for span in engine.spans:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda image: engine.infer([image], span), images))  # noqa: B023
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=ATOL, rtol=0.02)


@needs_plugin
def test_the_settings_treat_it_as_a_cpu(tmp_path: Path) -> None:
    settings = Settings(model=dynamic_model(tmp_path), device="openvino")
    engine = load_engine(settings)
    assert engine.max_batch == 1
    assert letterbox_mode(settings, engine) == "rectangle"
    assert engine_instances(settings, engine) == engine.spans[-1]
    assert on_one_thread(settings, engine)


@needs_plugin
def test_a_part_that_it_cannot_run_is_not_left_to_another_provider(tmp_path: Path) -> None:
    model = tiny_yolox_model()
    # Determinants are nothing that OpenVINO has; times zero, they leave the rows as they are.
    (cast,) = (node for node in model.graph.node if node.output[0] == "output")
    rows, (at, node) = cast.input[0], (list(model.graph.node).index(cast), helper.make_node)
    for name, values in {"from": [0, 0], "to": [2, 2], "axes": [1, 2]}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(values), name))
    zero = numpy_helper.from_array(np.zeros((1, 1, 1), np.float32), "zero")
    model.graph.initializer.append(zero)
    extra = [
        node("Slice", [rows, "from", "to", "axes"], ["corner"]),
        node("Det", ["corner"], ["determinants"]),
        node("ReduceSum", ["determinants"], ["sum"], keepdims=0),
        node("Mul", ["sum", "zero"], ["nothing"]),
        node("Add", [rows, "nothing"], ["same"]),
    ]
    for step in reversed(extra):
        model.graph.node.insert(at, step)
    cast.input[0] = "same"
    path = model_file(tmp_path, model)
    assert loaded(path).infer(IMAGES).shape[0] == 3
    with pytest.raises(StartupError, match=r"cannot be loaded.*fallback"):
        loaded(path, device="openvino")


@needs_plugin
def test_a_server_finds_with_it_what_it_finds_without() -> None:
    photo = (ROOT / "examples" / "parcel.jpg").read_bytes()
    found = []
    for device, provider in (("cpu", CPU), ("openvino", OPENVINO)):
        server = Server("--device", device)
        try:
            answer = server.client.post("/detect", content=photo, headers=JPEG).json()
            assert answer["model"]["provider"] == provider
            assert f'provider="{provider}"' in server.client.get("/metrics").text
        finally:
            server.close()
        found.append(answer["results"][0]["detections"])
    for mine, theirs in zip(*found, strict=True):
        assert mine["class_name"] == theirs["class_name"]
        assert mine["score"] == pytest.approx(theirs["score"], abs=0.03)
        assert mine["box"] == pytest.approx(theirs["box"], abs=3)


def test_who_lacks_the_plugin_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", None)
    monkeypatch.setattr("service.engine.onnx_engine.import_runtime", lambda: plain)
    with pytest.raises(StartupError, match=r"'openvino' was asked for.*yolox-serve\[openvino\]"):
        OnnxEngine(model_file(tmp_path), device="openvino").load()


def _runtime(register: Callable[..., None], devices: list[Any]) -> Any:
    return SimpleNamespace(
        get_available_providers=lambda: ["CPUExecutionProvider"],
        register_execution_provider_library=register,
        get_ep_devices=lambda: devices,
    )


def test_a_plugin_that_does_not_load_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: str) -> None:
        raise RuntimeError("needs another API version")

    plugin = SimpleNamespace(get_library_path=lambda: "plugin.so")
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", plugin)
    with pytest.raises(StartupError, match=f"{OPENVINO} cannot be loaded: needs another"):
        add_openvino(_runtime(refuse, []))


def test_of_its_devices_the_cpu_is_taken_or_none() -> None:
    def device(name: str, kind: str) -> Any:
        return SimpleNamespace(ep_name=name, ep_metadata={"ov_device": kind})

    cpu = device(OPENVINO, "CPU")
    others = [device(OPENVINO, "GPU"), device("CPUExecutionProvider", "CPU")]
    assert openvino_cpu(_runtime(print, [*others, cpu])) == [cpu]
    with pytest.raises(StartupError, match="knows no CPU"):
        openvino_cpu(_runtime(print, others))


def test_it_gets_the_threads_of_all_calls_together() -> None:
    (properties,) = json.loads(openvino_options(calls=4, threads=2)["load_config"]).values()
    assert properties["NUM_STREAMS"] == "4"
    assert properties["INFERENCE_NUM_THREADS"] == "8"
