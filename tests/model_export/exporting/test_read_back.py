"""An exported model is read back to be trained further: the same function, on folded norms."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from model_export.errors import ModelExportError
from model_export.exporting.export import export
from model_export.model.batch_norm_statistics import carries_statistics
from model_export.model.blocks import BATCH_NORM_EPSILON
from model_export.model.checkpoint import Kind, identify, load_weights, read_state_dict, shapes_of
from model_export.model.exported import EPSILON, HALF_SUFFIX, read_exported
from model_export.model.pretrained import initialise
from model_export.model.variants import Variant
from model_export.model.yolox import YOLOX, build
from service.build import DEFAULT_MODEL
from service.core.contract import InputSpec, ModelContract
from support.project import ROOT

CONTRACT = ModelContract(
    name="read-back",
    version="1",
    input=InputSpec("images", 64, 64),
    class_names=("red", "green", "blue"),
)


def lively(variant: Variant) -> YOLOX:
    """A model whose batch norms have statistics and parameters like those of a trained one."""
    torch.manual_seed(1)
    model = build(variant, 3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.momentum = 1.0
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            # An export stores equal tensors once, under one of their names.
            nn.init.normal_(module.bias)
    with torch.no_grad():
        model.train()(255 * torch.rand(4, 3, 64, 64))
    return model.eval()


@pytest.mark.heavy
def test_weights_that_are_read_back_compute_the_same(tmp_path: Path) -> None:
    model, path = lively("pico"), tmp_path / "model.onnx"
    export(model, CONTRACT, path)
    again = build("pico", 3)
    loaded = initialise(again, path)
    # A training then measures the statistics of the norms.
    assert loaded.folded
    images = 255 * torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        wanted, given = model(images), again.eval()(images)
    # Values of some fifty; small ones are sums of large ones, which add up in another order.
    within = 2e-4 * float(wanted.std())
    torch.testing.assert_close(given, wanted, atol=within, rtol=1e-3)


def test_biases_that_are_stored_once_or_not_at_all_are_read_back(tmp_path: Path) -> None:
    model, path = build("pico", 3), tmp_path / "model.onnx"
    with torch.no_grad():
        for level, value in enumerate((0.0, 0.0, 2.0)):
            model.head.reg_preds[level].bias.fill_(value)
            model.head.obj_preds[level].bias.fill_(-3.0)
    export(model, CONTRACT, path)
    again = build("pico", 3)
    initialise(again, path)
    for layer in ("reg_preds", "obj_preds", "cls_preds"):
        for level in range(3):
            name = f"head.{layer}.{level}.bias"
            torch.testing.assert_close(again.state_dict()[name], model.state_dict()[name])


def test_float16_weights_are_read_back_as_float32(tmp_path: Path) -> None:
    weights = {"model.stem.conv.weight": np.ones((4, 2, 3, 3)), "model.preds.bias": np.ones(4)}
    stored = [
        numpy_helper.from_array((values / 3).astype(np.float16), name + suffix)
        for (name, values), suffix in zip(weights.items(), (HALF_SUFFIX, ""), strict=True)
    ]
    onnx.save(helper.make_model(helper.make_graph([], "g", [], [], stored)), tmp_path / "a.onnx")
    found = read_exported(tmp_path / "a.onnx")
    assert list(found) == ["stem.conv.weight", "preds.bias"]
    assert {values.dtype for values in found.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(found["preds.bias"], 1 / 3, rtol=1e-3)


def test_the_embedded_model_is_read_back() -> None:
    assert identify(shapes_of(read_state_dict(DEFAULT_MODEL))) == Kind("micro", "decoupled", 5)
    model = build("micro", 5)
    assert load_weights(model, DEFAULT_MODEL) == ()
    photo = np.asarray(cv2.imread(str(ROOT / "examples" / "parcel.jpg")), dtype=np.uint8)
    images = cv2.resize(photo, (320, 224))[np.newaxis]
    session = onnxruntime.InferenceSession(DEFAULT_MODEL, providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"images": images})
    with torch.no_grad():
        given = model.eval()(torch.from_numpy(images).permute(0, 3, 1, 2).float())
    np.testing.assert_allclose(given, wanted, atol=1e-2)


def test_norms_that_are_read_back_add_a_bias_and_nothing_else() -> None:
    model = build("micro", 5)
    load_weights(model, DEFAULT_MODEL)
    assert not carries_statistics(model)
    assert EPSILON == BATCH_NORM_EPSILON


def test_a_file_without_names_of_ours_is_refused(tmp_path: Path) -> None:
    value = helper.make_tensor("w", TensorProto.FLOAT, [1], np.ones(1, np.float32))
    shape = [helper.make_tensor_value_info("w", TensorProto.FLOAT, [1])]
    onnx.save(
        helper.make_model(helper.make_graph([], "g", [], shape, [value])), tmp_path / "a.onnx"
    )
    with pytest.raises(ModelExportError, match="holds no state_dict"):
        read_state_dict(tmp_path / "a.onnx")
