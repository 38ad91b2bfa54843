"""Weights from files: what is taken, and what a refusal says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model_export.errors import ModelExportError
from model_export.model.checkpoint import (
    identify,
    load_weights,
    read_state_dict,
    shapes_of,
)
from model_export.model.yolox import YOLOX, build


@pytest.fixture(scope="module")
def trained() -> YOLOX:
    """A nano for three classes."""
    torch.manual_seed(1)
    return build("nano", num_classes=3)


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def _saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda state: state, id="state_dict"),
        pytest.param(lambda state: {"model": state, "start_epoch": 300}, id="released"),
        pytest.param(
            lambda state: {"model": state, "best_ap": np.float64(0.257), "optimizer": {}},
            id="released trainer",
        ),
    ],
)
def test_checkpoint_fills_the_model(wrap: Any, trained: YOLOX, tmp_path: Path) -> None:
    model = build("nano", num_classes=3)
    load_weights(model, _saved(wrap(trained.state_dict()), tmp_path / "weights.pth"))
    assert _same(model.state_dict(), trained.state_dict())


def test_archive_fills_the_model(trained: YOLOX, tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, **{name: value.numpy() for name, value in trained.state_dict().items()})
    model = build("nano", num_classes=3)
    load_weights(model, path)
    assert _same(model.state_dict(), trained.state_dict())


def test_released_weights_fill_the_model(shared_data: Path) -> None:
    path = shared_data / "weights" / "yolox_nano_state_bnfused.npz"
    model = build("nano")
    load_weights(model, path)
    released = read_state_dict(path)
    assert all(torch.equal(value, released[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            ("tiny", 3, "decoupled"),
            "holds yolox-nano with a decoupled head .* but the model is yolox-tiny",
        ),
        (("nano", 80, "decoupled"), "and 3 classes, but the model is .* and 80 classes"),
        (
            ("nano", 3, "coupled"),
            "a decoupled head .* but the model is .* a coupled head and 3 classes",
        ),
    ],
)
def test_another_models_weights_are_named(
    asked: Any, message: str, trained: YOLOX, tmp_path: Path
) -> None:
    path = _saved(trained.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ModelExportError, match=message):
        load_weights(build(*asked), path)


def test_names_that_do_not_fit_are_listed(trained: YOLOX, tmp_path: Path) -> None:
    state = dict(trained.state_dict())
    del state["head.stems.0.conv.weight"]
    state["ema.decay"] = torch.tensor(0.9)
    state["head.cls_preds.1.bias"] = torch.zeros(4)
    path = _saved(state, tmp_path / "weights.pth")
    model = build("nano", num_classes=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ModelExportError) as refusal:
        load_weights(model, path)
    assert "1 names (head.stems.0.conv.weight) missing" in str(refusal.value)
    assert "1 names (ema.decay) unknown" in str(refusal.value)
    assert "head.cls_preds.1.bias (4,) instead of (3,)" in str(refusal.value)
    assert _same(model.state_dict(), before)


@pytest.mark.parametrize("name", ["weights.pth", "weights.npz"])
@pytest.mark.parametrize("content", [b"", b"root:x:0:0", b"PK\x03\x04 cut short"])
def test_file_that_is_no_checkpoint_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelExportError, match=name):
        read_state_dict(path)


def test_checkpoint_with_a_damaged_middle_is_refused(trained: YOLOX, tmp_path: Path) -> None:
    path = _saved(trained.state_dict(), tmp_path / "weights.pth")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(byte ^ 0xFF for byte in content[middle : middle + 2000])
    path.write_bytes(content)
    with pytest.raises(ModelExportError, match="the file is damaged or was cut short"):
        read_state_dict(path)


def test_weights_of_a_failed_training_are_refused(trained: YOLOX, tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in trained.state_dict().items()}
    state["head.obj_preds.0.bias"][:] = float("nan")
    path = _saved(state, tmp_path / "weights.pth")
    with pytest.raises(ModelExportError, match=r"not finite, in 1 names \(head\.obj_preds"):
        load_weights(build("nano", num_classes=3), path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelExportError, match="No such file"):
        read_state_dict(tmp_path / "weights.pth")


def test_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = _saved({"model": {}, "run": Path("x")}, tmp_path / "weights.pth")
    with pytest.raises(ModelExportError, match="more than tensors"):
        read_state_dict(path)


@pytest.mark.parametrize("content", [{}, [1, 2], {"model": {}}, {"epoch": 3}])
def test_checkpoint_without_weights_is_refused(content: object, tmp_path: Path) -> None:
    path = _saved(content, tmp_path / "weights.pth")
    with pytest.raises(ModelExportError, match="holds no state_dict"):
        read_state_dict(path)


@pytest.mark.parametrize("holder", ["", "model", "state_dict", "ema"])
def test_weights_of_training_tools_are_read(holder: str, tmp_path: Path) -> None:
    state = build("pico", 3, "decoupled").state_dict()
    wrapped = {
        f"module.{name}": value for name, value in state.items() if "num_batches" not in name
    }
    content = {holder: wrapped, "epoch": 3} if holder else wrapped | {"module.extra": torch.ones(1)}
    torch.save(content, tmp_path / "weights.pth")
    model = build("pico", 3, "decoupled")

    assert load_weights(model, tmp_path / "weights.pth") == (() if holder else ("extra",))
    kind = identify(shapes_of(read_state_dict(tmp_path / "weights.pth")))
    assert str(kind) == "yolox-pico with a decoupled head and 3 classes"
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.parametrize("prefix", ["model.", "_orig_mod.", "module._orig_mod.", "student.net."])
def test_prefix_of_any_training_tool_is_removed(prefix: str, tmp_path: Path) -> None:
    state = build("pico", 3, "decoupled").state_dict()
    content = {prefix + name: value for name, value in state.items()} | {
        "loss.weight": torch.ones(1)
    }
    torch.save({"state_dict": content}, tmp_path / "weights.pth")

    found = read_state_dict(tmp_path / "weights.pth")
    assert found.keys() == {*state, "loss.weight"}


def test_averaged_weights_come_first_among_prefixes(tmp_path: Path) -> None:
    state = build("pico", 3, "coupled").state_dict()
    plain = {f"model.{name}": torch.zeros_like(value) for name, value in state.items()}
    averaged = {f"ema_model.{name}": value for name, value in state.items()}
    torch.save(plain | averaged, tmp_path / "weights.pth")
    model = build("pico", 3, "coupled")

    load_weights(model, tmp_path / "weights.pth")
    assert torch.equal(model.state_dict()["head.preds.0.weight"], state["head.preds.0.weight"])


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    state = build("pico", 3, "decoupled").state_dict()
    save_file(state, tmp_path / "weights.safetensors")

    found = read_state_dict(tmp_path / "weights.safetensors")
    assert found.keys() == state.keys()
