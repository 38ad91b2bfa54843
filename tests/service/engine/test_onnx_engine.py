import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from service.core.contract import InputSpec
from service.core.input_tensor import pack_images
from service.engine.base import CpuShares
from service.engine.onnx_runtime import share_out, tensorrt_options
from service.errors import StartupError
from service.settings import Device
from support.model_files import IMAGES, NAMES, loaded, model_file
from support.onnx_models import tiny_yolox_model
from support.runtimes import PretendingRuntime, SilentlyFallingRuntime, use_runtime


def test_engine_gives_one_set_of_raw_rows_per_image(tmp_path: Path) -> None:
    engine = loaded(model_file(tmp_path))
    raw = engine.infer(IMAGES)
    assert raw.shape == (3, engine.contract.num_cells(64, 64), 8)
    assert not np.allclose(raw[0], raw[1])
    for image, rows in zip(IMAGES, raw, strict=True):
        np.testing.assert_allclose(engine.infer(image[None])[0], rows, atol=1e-5)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_every_input_form_sees_the_same_picture(tmp_path: Path, layout: Any, dtype: Any) -> None:
    expected = loaded(model_file(tmp_path)).infer(IMAGES)
    model = tiny_yolox_model(dtype=dtype, layout=layout)
    raw = loaded(model_file(tmp_path, model, dtype=dtype, layout=layout)).infer(IMAGES)
    np.testing.assert_allclose(raw, expected, atol=0.05 if dtype == "float16" else 1e-4)


def test_packing_follows_colour_order_and_range() -> None:
    spec = InputSpec(
        "x",
        64,
        64,
        layout="NCHW",
        dtype="float32",
        color_order="RGB",
        value_range=(-1.0, 1.0),
    )
    packed = pack_images(IMAGES, spec)
    assert packed.shape == (3, 3, 64, 64)
    assert packed.dtype == np.float32
    assert packed.flags.c_contiguous
    np.testing.assert_allclose(packed[1, 0], IMAGES[1, :, :, 2] / 127.5 - 1, atol=1e-6)


def test_a_fixed_batch_is_filled_up_and_the_filling_cut_off(tmp_path: Path) -> None:
    engine = loaded(model_file(tmp_path, tiny_yolox_model(batch=2), batch=2))
    assert engine.max_batch == 2
    np.testing.assert_allclose(engine.infer(IMAGES[:1])[0], engine.infer(IMAGES[:2])[0], atol=1e-6)
    assert len(engine.infer(IMAGES[:1])) == 1


def test_a_wider_call_has_more_threads_and_the_same_answer(tmp_path: Path) -> None:
    engine = loaded(model_file(tmp_path), shares=CpuShares(2, 1, [1, 2]))
    assert engine.spans == (1, 2)
    threads = {
        span: session.get_session_options().intra_op_num_threads
        for span, session in engine._sessions.items()  # type: ignore[attr-defined]
    }
    assert threads == {1: 2, 2: 4}
    np.testing.assert_allclose(engine.infer(IMAGES, 2), engine.infer(IMAGES), atol=1e-5)


def test_a_cpu_takes_images_one_by_one_unless_told_otherwise(tmp_path: Path) -> None:
    assert loaded(model_file(tmp_path)).max_batch == 1
    assert loaded(model_file(tmp_path), max_batch=4).max_batch == 4


def test_a_batch_that_a_cpu_may_meet_is_tried_before_it_is_ready(tmp_path: Path) -> None:
    engine = loaded(model_file(tmp_path, tiny_yolox_model(batch=1)), max_batch=4)
    with pytest.raises(StartupError, match="cannot run"):
        engine.warm((64, 64))


def test_a_model_in_a_folder_that_is_closed_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(_: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "is_file", closed)
    with pytest.raises(StartupError, match=r"cannot read .*tiny.onnx: Permission denied"):
        loaded(tmp_path / "tiny.onnx")


def test_provider_is_read_back_and_warming_runs(tmp_path: Path) -> None:
    engine = loaded(model_file(tmp_path), device="cpu")
    assert engine.provider == "CPUExecutionProvider"
    engine.warm((64, 64))


def test_output_of_another_shape_than_promised_stops_the_start(tmp_path: Path) -> None:
    engine = loaded(model_file(tmp_path, tiny_yolox_model(dynamic_size=True), height=96))
    contract = engine.contract
    engine.warm((96, 64))
    object.__setattr__(contract, "strides", (8, 16))
    with pytest.raises(StartupError, match="promises"):
        engine.warm((96, 64))


def test_model_that_cannot_run_stops_the_start(tmp_path: Path) -> None:
    engine = loaded(model_file(tmp_path))
    with pytest.raises(StartupError, match="cannot run"):
        engine.warm((32, 32))


def test_file_without_contract_says_how_to_get_one(tmp_path: Path) -> None:
    path = tmp_path / "alien.onnx"
    onnx.save(tiny_yolox_model(), path)
    with pytest.raises(StartupError, match=r"no model contract.*yolox-serve adopt"):
        loaded(path)


@pytest.mark.parametrize(
    ("model", "spec", "names", "message"),
    [
        ({}, {"name": "input"}, NAMES, "contract says 'input'"),
        ({}, {"dtype": "uint8"}, NAMES, "graph takes float32"),
        ({}, {}, ("one", "two"), "8 values a row"),
        ({"merged": False}, {}, NAMES, "3 outputs"),
    ],
)
def test_contract_that_contradicts_the_graph_is_refused(
    tmp_path: Path, model: Any, spec: Any, names: tuple[str, ...], message: str
) -> None:
    path = model_file(tmp_path, tiny_yolox_model(**model), names, **spec)
    with pytest.raises(StartupError, match=message):
        loaded(path)


def test_missing_file_and_damaged_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="there is no model file"):
        loaded(tmp_path / "nowhere.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(StartupError, match="cannot be loaded"):
        loaded(broken)


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_device_that_the_runtime_lacks_is_refused(tmp_path: Path, device: Any) -> None:
    with pytest.raises(StartupError, match=f"{device}.*extra `gpu`"):
        loaded(model_file(tmp_path), device=device)


@pytest.fixture
def falling_runtime(monkeypatch: pytest.MonkeyPatch) -> SilentlyFallingRuntime:
    runtime = SilentlyFallingRuntime()
    use_runtime(monkeypatch, runtime)
    return runtime


def test_a_silent_fall_to_the_cpu_is_a_refusal_to_start(
    tmp_path: Path, falling_runtime: SilentlyFallingRuntime
) -> None:
    with pytest.raises(StartupError, match="would run on CPUExecutionProvider"):
        loaded(model_file(tmp_path), device="cuda", gpu_memory_limit_mb=512)
    (first, options), *_ = falling_runtime.asked
    assert first == "CUDAExecutionProvider"
    assert options["gpu_mem_limit"] == str(512 * 2**20)
    assert falling_runtime.preloaded


def test_tensorrt_is_told_beforehand_what_it_will_be_asked(
    tmp_path: Path, falling_runtime: SilentlyFallingRuntime
) -> None:
    falling_runtime.available.insert(0, "TensorrtExecutionProvider")
    model = tiny_yolox_model(dynamic_size=True)
    path = model_file(tmp_path, model, height=96, dynamic_size=True)
    with pytest.raises(StartupError, match="would run on CPUExecutionProvider"):
        loaded(path, device="tensorrt", max_batch=8, tensorrt_cache=tmp_path / "cache")
    (first, options), (second, _), _ = falling_runtime.asked
    assert (first, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert options["trt_engine_cache_path"] == str(tmp_path / "cache")
    assert options["trt_profile_min_shapes"] == "images:1x3x32x32"
    assert options["trt_profile_max_shapes"] == "images:8x3x96x64"
    assert options["trt_fp16_enable"] == "False"


def test_tensorrt_engines_are_kept_only_where_told_and_shapes_follow_the_layout() -> None:
    spec = InputSpec("x", 64, 96)
    options = tensorrt_options(spec, half=True, max_batch=4, cache=None)
    assert options == {
        "trt_fp16_enable": "True",
        "trt_profile_min_shapes": "x:1x64x96x3",
        "trt_profile_opt_shapes": "x:4x64x96x3",
        "trt_profile_max_shapes": "x:4x64x96x3",
    }
    fixed = tensorrt_options(InputSpec("x", 64, 96, batch=2), half=True, max_batch=4, cache=None)
    assert fixed == {"trt_fp16_enable": "True"}


def test_auto_tries_the_gpu_and_says_loudly_that_it_fell_to_the_cpu(
    tmp_path: Path, falling_runtime: SilentlyFallingRuntime, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = loaded(model_file(tmp_path), device="auto")
    assert falling_runtime.tried == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert engine.provider == "CPUExecutionProvider"
    assert engine.wanted_provider == "CUDAExecutionProvider"
    assert "the GPU did not start" in capsys.readouterr().err


@pytest.fixture
def pretending_runtime(monkeypatch: pytest.MonkeyPatch) -> PretendingRuntime:
    runtime = PretendingRuntime()
    use_runtime(monkeypatch, runtime)
    return runtime


def test_on_cuda_batches_are_padded_to_a_few_sizes_with_a_session_each(
    tmp_path: Path, pretending_runtime: PretendingRuntime
) -> None:
    path = model_file(tmp_path)
    alone = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = alone.run(None, {"images": IMAGES.transpose(0, 3, 1, 2).astype(np.float32)})
    engine = loaded(path, device="cuda", max_batch=12)
    engine.warm((64, 64))
    assert [size for _, size in pretending_runtime.ran] == [1, 2, 4, 8, 12]
    session_of = {size: session for session, size in pretending_runtime.ran}
    assert len(set(session_of.values())) == 5
    pretending_runtime.ran.clear()
    for count in (1, 3, 1):
        rows = engine.infer([*IMAGES[:count]])
        np.testing.assert_allclose(rows, expected[:count], atol=1e-5)
    assert pretending_runtime.ran == [(session_of[size], size) for size in (1, 4, 1)]


def test_rows_on_cuda_stay_as_they_are_while_somebody_has_them(
    tmp_path: Path, pretending_runtime: PretendingRuntime
) -> None:
    engine = loaded(model_file(tmp_path), device="cuda")
    kept = engine.infer([IMAGES[0]])[0]
    before = kept.copy()
    others = [engine.infer([image])[0] for image in IMAGES[1:]]
    np.testing.assert_array_equal(kept, before)
    assert not any(np.shares_memory(kept, other) for other in others)


def test_on_cuda_pixels_and_rows_lie_in_locked_memory_that_is_used_again(
    tmp_path: Path, pretending_runtime: PretendingRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[int] = []
    monkeypatch.setattr(
        "service.engine.onnx_gpu.page_locker",
        lambda: lambda memory: locked.append(memory.nbytes),
    )
    engine = loaded(model_file(tmp_path), device="cuda", max_batch=4)
    expected = engine.infer([*IMAGES]).copy()
    pixels_and_rows = len(locked)
    for _ in range(3):
        np.testing.assert_array_equal(engine.infer([*IMAGES]), expected)
    assert pixels_and_rows == len(locked) == 2


@pytest.mark.parametrize(("device", "sleeps"), [("cuda", 1), ("cpu", 0)])
def test_threads_that_wait_for_a_gpu_sleep(
    tmp_path: Path,
    pretending_runtime: PretendingRuntime,
    monkeypatch: pytest.MonkeyPatch,
    device: Device,
    sleeps: int,
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(
        "service.engine.onnx_gpu.sleep_while_waiting", lambda: calls.append("sleep")
    )
    pretending_runtime.sessions_with_room = 99 if device == "cuda" else 0
    loaded(model_file(tmp_path), device=device)
    assert len(calls) == sleeps


def test_a_batch_size_that_would_fall_to_the_cpu_stops_the_start(
    tmp_path: Path, pretending_runtime: PretendingRuntime
) -> None:
    pretending_runtime.sessions_with_room = 3
    with pytest.raises(StartupError, match="batches of 4 would run on CPUExecutionProvider"):
        loaded(model_file(tmp_path), device="auto")


def test_a_bound_of_gpu_memory_is_shared_out_among_the_sessions(
    tmp_path: Path, pretending_runtime: PretendingRuntime
) -> None:
    loaded(model_file(tmp_path), device="cuda", max_batch=4, gpu_memory_limit_mb=512)
    probe, *limits = (int(limit or 0) for limit in pretending_runtime.limits)
    assert probe == 512 * 2**20
    assert limits == sorted(limits)
    assert 0.99 * probe < sum(limits) <= probe


def test_a_bound_of_gpu_memory_below_the_weights_stops_the_start(tmp_path: Path) -> None:
    weights = tmp_path / "weights.onnx"
    weights.write_bytes(bytes(2**20 * 100))
    assert share_out(None, [1, 2], weights) == [None, None]
    assert share_out(500, [1, 3], weights) == [175, 325]
    with pytest.raises(StartupError, match=r"200 has no room for 2 copies.*100 MiB"):
        share_out(200, [1, 3], weights)


def test_a_missing_runtime_is_one_clear_line() -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = sys.modules['openvino'] = None\n"
        "from service.__main__ import main\n"
        "sys.exit(main([]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error: ONNX Runtime is not installed: pip install 'yolox-serve[cpu]'" in done.stderr
    assert "Traceback" not in done.stderr
