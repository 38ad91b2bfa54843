"""OpenVINO as an engine of its own: the rows, the sizes that it compiles, and what is refused."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.build import (
    DEFAULT_MODEL,
    engine_instances,
    letterbox_mode,
    load_engine,
    on_one_thread,
)
from service.core.input_tensor import stack_images
from service.engine.base import CPU, OPENVINO, CpuShares
from service.engine.openvino.engine import OpenVinoEngine
from service.engine.openvino.model import CompiledModel, OpenVinoModel, multiplies_in_bf16
from service.engine.openvino.narrow_sizes import CALLS_UNTIL_COMPILED, TIMES_AS_OFTEN, NarrowSizes
from service.errors import StartupError
from service.settings import Settings
from support.model_files import IMAGES, dynamic_model, loaded, model_file
from support.onnx_models import tiny_yolox_model
from support.project import ROOT
from support.servers import Server

needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="the package openvino is not installed"
)
# bfloat16 keeps 8 bits of what is added up to logits between -10 and 10.
ATOL = 0.06
RTOL = 0.02
JPEG = {"Content-Type": "image/jpeg"}


def images_of(sizes: list[tuple[int, int]], times: int) -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes * times]


@needs_openvino
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_rows_are_those_of_onnx_runtime(tmp_path: Path, layout: Any, dtype: Any) -> None:
    model = tiny_yolox_model(dtype=dtype, layout=layout)
    path = model_file(tmp_path, model, dtype=dtype, layout=layout)
    engine = loaded(path, device="openvino")
    assert engine.provider == engine.wanted_provider == OPENVINO
    raw = engine.infer([*IMAGES])
    assert raw.shape == (3, engine.contract.num_cells(64, 64), 8)
    np.testing.assert_allclose(raw, loaded(path).infer([*IMAGES]), atol=ATOL, rtol=RTOL)


@needs_openvino
def test_a_fixed_batch_is_filled_up_and_the_filling_cut_off(tmp_path: Path) -> None:
    path = model_file(tmp_path, tiny_yolox_model(batch=2), batch=2)
    engine = loaded(path, device="openvino", narrow_sizes=1)
    assert engine.max_batch == 2
    engine.warm((64, 64))
    both = engine.infer([*IMAGES[:2]])
    alone = engine.infer([IMAGES[0]])
    assert len(alone) == 1
    np.testing.assert_allclose(alone[0], both[0], atol=ATOL, rtol=RTOL)


@needs_openvino
def test_calls_of_any_size_and_span_run_side_by_side(tmp_path: Path) -> None:
    path = dynamic_model(tmp_path)
    engine = loaded(path, device="openvino", shares=CpuShares(1, 2, [1, 2]), narrow_sizes=2)
    assert list(engine.spans) == [1, 2]
    images = images_of([(64, 96), (64, 32), (32, 96)], times=40)
    reference = loaded(path)
    expected = [reference.infer([image]) for image in images]
    for span in engine.spans:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda image: engine.infer([image], span), images))  # noqa: B023
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=ATOL, rtol=RTOL)


@needs_openvino
def test_a_size_that_a_crowd_sends_is_compiled_for_itself(tmp_path: Path) -> None:
    engine = OpenVinoEngine(dynamic_model(tmp_path), shares=CpuShares(1, 2, [1, 2]), narrow_sizes=1)
    engine.load()
    (image,) = images_of([(32, 96)], times=1)
    expected = engine.infer([image], 2)
    for _ in range(CALLS_UNTIL_COMPILED):
        engine.infer([image], 2)
    assert engine._narrow.take((32, 96)) is None
    for _ in range(CALLS_UNTIL_COMPILED):
        engine.infer([image])
    engine._narrow.wait()
    narrow = engine._narrow.take((32, 96))
    assert isinstance(narrow, CompiledModel)
    assert narrow.threads == 1
    engine._narrow.give_back((32, 96), narrow)
    np.testing.assert_allclose(engine.infer([image]), expected, atol=ATOL, rtol=RTOL)


@needs_openvino
def test_sizes_of_photos_are_warmed_and_strips_are_left(tmp_path: Path) -> None:
    engine = loaded(dynamic_model(tmp_path), device="openvino")
    sizes = [(96, 96), (64, 96), (96, 32), (96, 64), (32, 64)]
    assert engine.cold_sizes(sizes) == [(96, 96), (64, 96), (96, 64), (32, 64)]


@needs_openvino
def test_a_narrow_model_computes_on_its_callers_thread(tmp_path: Path) -> None:
    model = OpenVinoModel(dynamic_model(tmp_path))
    compiled = model.compile((96, 96), streams=1, threads=1)
    tensor = stack_images(images_of([(96, 96)], times=1), model.contract.input)
    compiled.run_unbound(tensor)
    shares = []
    # Threads that earlier tests have left may take CPU time in some of the rounds.
    for _ in range(5):
        on_this_thread, everywhere = time.thread_time(), time.process_time()
        for _ in range(50):
            compiled.run_unbound(tensor)
        on_this_thread = time.thread_time() - on_this_thread
        shares.append(on_this_thread / (time.process_time() - everywhere))
    assert max(shares) > 0.8


@needs_openvino
def test_a_call_on_a_borrowed_cpu_gets_a_copy_too(tmp_path: Path) -> None:
    shares = CpuShares(threads=1, instances=1, spans=[1, 2])
    engine = OpenVinoEngine(dynamic_model(tmp_path), shares=shares, narrow_sizes=1)
    engine.load()
    (image,) = images_of([(32, 96)], times=1)
    for _ in range(CALLS_UNTIL_COMPILED):
        engine.infer([image])
    engine._narrow.wait()
    own = engine._narrow.take((32, 96))
    assert own is not None
    for _ in range(CALLS_UNTIL_COMPILED):
        engine.infer([image])
    engine._narrow.wait()
    assert engine._narrow.take((32, 96)) not in (None, own)


@needs_openvino
def test_float16_weights_are_widened_once_for_all_compiled_models() -> None:
    nodes = OpenVinoModel(DEFAULT_MODEL)._model.get_ops()
    weights = [node for node in nodes if node.get_type_name() == "Constant"]
    assert weights
    assert all(node.get_element_type().to_string() != "f16" for node in weights)


@needs_openvino
def test_precision_threads_and_provider_are_read_back(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    engine = loaded(path, device="openvino", shares=CpuShares(1, 3, [1, 3]))
    assert engine.precision in ("f32", "bf16")
    compiled = OpenVinoModel(path).compile((64, 64), streams=3, threads=2)
    assert compiled.precision == engine.precision
    assert compiled.threads <= 6


@needs_openvino
def test_the_settings_treat_it_as_a_cpu(tmp_path: Path) -> None:
    settings = Settings(model=dynamic_model(tmp_path), device="openvino")
    engine = load_engine(settings)
    assert engine.on_cpu
    assert engine.max_batch == 1
    assert letterbox_mode(settings, engine) == "rectangle"
    assert engine_instances(settings, engine) == engine.spans[-1]
    assert on_one_thread(settings, engine)


@needs_openvino
def test_a_file_that_it_cannot_read_or_run_stops_the_start(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08 not a model")
    with pytest.raises(StartupError, match=r"broken\.onnx cannot be loaded by OpenVINO"):
        loaded(broken, device="openvino")
    with pytest.raises(StartupError, match="there is no model file"):
        loaded(tmp_path / "nowhere.onnx", device="openvino")


@needs_openvino
def test_an_output_of_another_shape_than_promised_stops_the_start(tmp_path: Path) -> None:
    path = model_file(tmp_path, tiny_yolox_model(dynamic_size=True), height=96, dynamic_size=True)
    engine = loaded(path, device="openvino")
    engine.warm((96, 64))
    object.__setattr__(engine.contract, "strides", (8, 16))
    with pytest.raises(StartupError, match="promises"):
        engine.warm((96, 64))


@needs_openvino
def test_a_contract_that_contradicts_the_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="8 values a row"):
        loaded(model_file(tmp_path, names=("one", "two")), device="openvino")


@needs_openvino
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


@needs_openvino
def test_openvino_is_kept_from_reporting_to_its_maker(tmp_path: Path) -> None:
    code = (
        "import sys; from service.engine.openvino.model import import_openvino\n"
        "import_openvino(); sys.exit('openvino_telemetry.main' in sys.modules)"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    # Where it would keep the number by which it knows this machine again.
    assert not (tmp_path / "intel").exists()


@needs_openvino
def test_signals_arrive_after_an_engine_was_dropped_on_another_thread(tmp_path: Path) -> None:
    code = """
import faulthandler, gc, signal, sys, threading
from service.engine.openvino.engine import OpenVinoEngine
from pathlib import Path

faulthandler.enable()
signal.signal(signal.SIGUSR1, lambda *_: print("arrived"))
engines = [OpenVinoEngine(Path(sys.argv[1]))]
engines[0].load()
dropping = threading.Thread(target=lambda: (engines.clear(), gc.collect()))
dropping.start()
dropping.join()
signal.raise_signal(signal.SIGUSR1)
"""
    command = [sys.executable, "-c", code, str(model_file(tmp_path))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "arrived\n"


def test_a_missing_package_is_told_with_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(StartupError, match=r"'openvino' was asked for.*yolox-serve\[openvino\]"):
        loaded(model_file(tmp_path), device="openvino")


@pytest.mark.parametrize(
    ("flags", "capabilities", "expected"),
    [
        ("flags\t\t: fpu avx512_bf16 amx_tile", ["FP32", "BF16"], True),
        ("flags\t\t: fpu avx2 avx512f", ["FP32", "BF16"], False),
        ("flags\t\t: fpu avx512_bf16", ["FP32"], False),
        ("Features\t: fp asimd bf16", ["FP32", "BF16"], True),
        ("processor\t: 0", ["FP32", "BF16"], True),
        (None, ["FP32", "BF16"], True),
    ],
)
def test_bfloat16_is_for_cpus_that_multiply_in_it(
    tmp_path: Path, flags: str | None, capabilities: list[str], expected: bool
) -> None:
    description = tmp_path / "cpuinfo"
    if flags is not None:
        description.write_text(f"model name\t: some CPU\n{flags}\n")
    assert multiplies_in_bf16(capabilities, description) is expected


class Compiler:
    """Compiles nothing, and keeps for what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, size: tuple[int, int]) -> str:
        self.asked.append(size)
        assert self.gate.wait(30)
        if size[0] == 13:
            raise RuntimeError("cannot")
        return f"model of {size}"


def called(sizes: NarrowSizes[str], size: tuple[int, int], times: int) -> None:
    for _ in range(times):
        model = sizes.take(size)
        if model is not None:
            sizes.give_back(size, model)
    sizes.wait()


def has_model(sizes: NarrowSizes[str], size: tuple[int, int]) -> bool:
    model = sizes.take(size)
    if model is None:
        return False
    sizes.give_back(size, model)
    return model == f"model of {size}"


def test_only_so_many_sizes_are_compiled_and_a_far_commoner_one_takes_a_place() -> None:
    compiler = Compiler()
    sizes = NarrowSizes(2, 1, compiler)
    called(sizes, (1, 1), CALLS_UNTIL_COMPILED - 1)
    assert compiler.asked == []
    called(sizes, (1, 1), 1)
    called(sizes, (2, 2), CALLS_UNTIL_COMPILED + 10)
    assert compiler.asked == [(1, 1), (2, 2)]
    called(sizes, (3, 3), TIMES_AS_OFTEN * CALLS_UNTIL_COMPILED)
    assert compiler.asked == [(1, 1), (2, 2)]
    called(sizes, (3, 3), 1)
    assert compiler.asked[-1] == (3, 3)
    assert has_model(sizes, (3, 3))
    assert has_model(sizes, (2, 2))
    assert not has_model(sizes, (1, 1))


def test_a_model_runs_one_call_at_a_time() -> None:
    sizes = NarrowSizes(1, 1, Compiler())
    called(sizes, (1, 1), CALLS_UNTIL_COMPILED)
    model = sizes.take((1, 1))
    assert model == "model of (1, 1)"
    assert sizes.take((1, 1)) is None
    sizes.give_back((1, 1), model)
    assert sizes.take((1, 1)) == model


def test_a_size_gets_as_many_copies_as_calls_meet_busy_ones() -> None:
    compiler = Compiler()
    sizes = NarrowSizes(1, 3, compiler)
    called(sizes, (1, 1), CALLS_UNTIL_COMPILED)
    # Every second call comes while another one runs, then every third beside two others.
    for beside in (1, 2, 3):
        for _ in range(4 * CALLS_UNTIL_COMPILED):
            taken = [sizes.take((1, 1)) for _ in range(beside + 1)]
            for model in filter(None, taken):
                sizes.give_back((1, 1), model)
            sizes.wait()
        assert len(compiler.asked) == min(3, beside + 1)


def test_a_rare_busy_call_is_no_reason_for_a_copy() -> None:
    compiler = Compiler()
    sizes = NarrowSizes(1, 2, compiler)
    called(sizes, (1, 1), CALLS_UNTIL_COMPILED)
    for _ in range(2 * CALLS_UNTIL_COMPILED):
        model = sizes.take((1, 1))
        assert model is not None
        assert sizes.take((1, 1)) is None
        sizes.give_back((1, 1), model)
        called(sizes, (1, 1), 10)
    assert compiler.asked == [(1, 1)]


def test_a_model_that_comes_back_after_its_size_has_lost_its_place_is_dropped() -> None:
    sizes = NarrowSizes(1, 1, Compiler())
    called(sizes, (1, 1), CALLS_UNTIL_COMPILED)
    late = sizes.take((1, 1))
    assert late is not None
    called(sizes, (2, 2), TIMES_AS_OFTEN * (CALLS_UNTIL_COMPILED + 1) + 1)
    sizes.give_back((1, 1), late)
    assert has_model(sizes, (2, 2))
    assert sizes.take((1, 1)) is None


def test_calls_go_on_while_a_size_is_compiled() -> None:
    compiler = Compiler()
    compiler.gate.clear()
    sizes = NarrowSizes(2, 1, compiler)
    for _ in range(CALLS_UNTIL_COMPILED + 5):
        assert sizes.take((1, 1)) is None
    assert len(compiler.asked) == 1
    compiler.gate.set()
    sizes.wait()
    assert has_model(sizes, (1, 1))


def test_a_size_that_cannot_be_compiled_is_tried_once() -> None:
    compiler = Compiler()
    sizes = NarrowSizes(2, 1, compiler)
    called(sizes, (13, 13), 3 * CALLS_UNTIL_COMPILED)
    assert compiler.asked == [(13, 13)]
    called(sizes, (2, 2), CALLS_UNTIL_COMPILED)
    assert compiler.asked == [(13, 13), (2, 2)]


def test_no_size_is_compiled_where_none_may_be() -> None:
    compiler = Compiler()
    called(NarrowSizes(0, 1, compiler), (1, 1), 3 * CALLS_UNTIL_COMPILED)
    assert compiler.asked == []
