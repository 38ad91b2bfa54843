"""A third-party graph takes other sizes only where its cells prove to give the same there."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import ArrayLike, NDArray
from onnx import helper, numpy_helper

from model_export.adoption.adopt import Adoption, AdoptRequest, adopt
from model_export.data.class_names import COCO_CLASS_NAMES
from model_export.graphs.network import load_network
from model_export.graphs.open_axes import narrow_windows
from model_export.graphs.pixel_values import PixelValues
from model_export.graphs.prove_axes import other_sizes
from model_export.model.checkpoint import load_weights
from model_export.model.yolox import build
from service.core.contract import ModelContract
from support.onnx_models import calm_yolox_model as tiny_yolox_model

# After what scores are, and batches.
PLAIN = PixelValues()
NAMES = ("blue", "green", "red")


def adopted(folder: Path, model: onnx.ModelProto, request: AdoptRequest | None = None) -> Adoption:
    onnx.save(model, folder / "source.onnx")
    request = request or AdoptRequest(NAMES, pixel_values=PLAIN)
    adoption = adopt(folder / "source.onnx", folder / "out.onnx", request)
    written = onnx.load(folder / "out.onnx")
    metadata = {entry.key: entry.value for entry in written.metadata_props}
    assert ModelContract.from_metadata(metadata) == adoption.contract
    return adoption


def size_note(adoption: Adoption) -> str:
    (told,) = [each for each in adoption.notes if each.startswith(("size ", "any size "))]
    return told


def rows(model: Path | onnx.ModelProto, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The rows that a file or a model gives for (N, H, W, 3) uint8 images."""
    source = model if isinstance(model, Path) else model.SerializeToString()
    return load_network(source, (0.0, 255.0)).run(images).astype(np.float64)


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (2, height, width, 3), dtype=np.uint8)


def with_steps(
    steps: Sequence[onnx.NodeProto],
    constants: Mapping[str, ArrayLike] | None = None,
    model: onnx.ModelProto | None = None,
) -> onnx.ModelProto:
    """A tiny model with steps before the network proper, from `pixels` to `planes`."""
    model = model or tiny_yolox_model()
    graph = model.graph
    for node in graph.node:
        if node.op_type == "AveragePool":
            node.input[0] = "planes"
    for place, step in enumerate(steps):
        graph.node.insert(1 + place, step)
    for name, value in (constants or {}).items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return model


def with_row_shapes(model: onnx.ModelProto, *lengths: int) -> onnx.ModelProto:
    """The model, its Reshape for each level with a target of its own that ends in a number."""
    reshapes = [node for node in model.graph.node if node.op_type == "Reshape"]
    for reshape, length in zip(reshapes, lengths, strict=True):
        reshape.input[1] = f"shape{length}"
        shape = numpy_helper.from_array(np.array([1, 8, length]), reshape.input[1])
        model.graph.initializer.append(shape)
    return model


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_graph_of_one_size_is_opened_for_any(tmp_path: Path, dtype: str, layout: str) -> None:
    options = {"dtype": dtype, "layout": layout, "activation": "probabilities"}
    model = tiny_yolox_model(batch=1, height=96, **options)
    adoption = adopted(tmp_path, model)

    size = adoption.contract.input
    assert (size.height, size.width, size.dynamic_size) == (96, 64, True)
    assert any("any size in multiples of 32" in note for note in adoption.notes)
    for height, width in ((96, 64), (32, 160), (128, 32)):
        images = noise(height, width)
        expected = rows(tiny_yolox_model(height=height, width=width, **options), images)
        np.testing.assert_allclose(rows(tmp_path / "out.onnx", images), expected, atol=1e-6)


def test_reshapes_that_hold_numbers_of_cells_are_opened(tmp_path: Path) -> None:
    model = with_row_shapes(tiny_yolox_model(batch=1), 64, 16, 4)

    assert adopted(tmp_path, model).contract.input.dynamic_size
    images = noise(96, 32)
    expected = rows(tiny_yolox_model(height=96, width=32), images)
    np.testing.assert_allclose(rows(tmp_path / "out.onnx", images), expected, atol=1e-6)


def test_size_that_only_pretends_to_be_open_is_really_opened(tmp_path: Path) -> None:
    model = with_row_shapes(tiny_yolox_model(dynamic_size=True), 64, 16, 4)
    adoption = adopted(tmp_path, model, AdoptRequest(NAMES, pixel_values=PLAIN, size=(64, 64)))

    assert adoption.contract.input.dynamic_size
    assert rows(tmp_path / "out.onnx", noise(64, 96)).shape == (2, 126, 8)


def test_open_size_is_kept_open(tmp_path: Path) -> None:
    model = tiny_yolox_model(dynamic_size=True)
    request = AdoptRequest(NAMES, pixel_values=PLAIN, size=(64, 96), least_side=64, keep_graph=True)
    adoption = adopted(tmp_path, model, request)

    size = adoption.contract.input
    assert (size.height, size.width, size.dynamic_size, size.least_side) == (64, 96, True, 64)
    assert onnx.load(tmp_path / "out.onnx").graph == model.graph


@pytest.mark.parametrize("dynamic_size", [False, True])
def test_size_is_left_as_it_is_when_asked(tmp_path: Path, dynamic_size: bool) -> None:
    model = tiny_yolox_model(dynamic_size=dynamic_size)
    size = (64, 64) if dynamic_size else None
    request = AdoptRequest(NAMES, pixel_values=PLAIN, size=size, fixed_size=True, keep_graph=True)
    adoption = adopted(tmp_path, model, request)

    assert not adoption.contract.input.dynamic_size
    assert size_note(adoption) == "size 64x64 only, as asked"
    assert onnx.load(tmp_path / "out.onnx").graph == model.graph


POSITION = np.linspace(0.5, 1, 64, dtype=np.float32)
FROZEN = {
    "slices that end at the old size": with_steps(
        [helper.make_node("Slice", ["pixels", "start", "end", "axes"], ["planes"])],
        {"start": [0, 0], "end": [64, 64], "axes": [2, 3]},
    ),
    "upsampling to the old size": with_steps(
        [
            helper.make_node(
                "AveragePool", ["pixels"], ["half"], kernel_shape=[2, 2], strides=[2, 2]
            ),
            helper.make_node("Resize", ["half", "region", "none", "sizes"], ["planes"]),
        ],
        {
            "region": np.array([], np.float32),
            "none": np.array([], np.float32),
            "sizes": [1, 3, 64, 64],
        },
    ),
    "a value for each column of the old size": with_steps(
        [helper.make_node("Mul", ["pixels", "position"], ["planes"])], {"position": POSITION}
    ),
}
# These run at every size, and give as many rows as they ought to.
WRONG_ELSEWHERE = {
    "pixels taken for lines of the old width": with_steps(
        [
            helper.make_node("Shape", ["pixels"], ["shape"]),
            helper.make_node("Reshape", ["pixels", "lines"], ["old"]),
            helper.make_node("Mul", ["old", "position"], ["lit"]),
            helper.make_node("Reshape", ["lit", "shape"], ["planes"]),
        ],
        {"lines": [0, 3, -1, 64], "position": POSITION},
    ),
    "a look at the whole picture": with_steps(
        [
            helper.make_node("GlobalAveragePool", ["pixels"], ["mean"]),
            helper.make_node("Sub", ["pixels", "mean"], ["planes"]),
        ]
    ),
}


@pytest.mark.parametrize("model", FROZEN.values(), ids=FROZEN)
def test_size_that_is_frozen_inside_stays_fixed(tmp_path: Path, model: onnx.ModelProto) -> None:
    adoption = adopted(tmp_path, model)

    assert not adoption.contract.input.dynamic_size
    assert size_note(adoption).startswith("size 64x64 only; other sizes fail: the ")
    assert load_network(tmp_path / "out.onnx", (0.0, 255.0)).image.height == 64


@pytest.mark.parametrize("declared", [False, True], ids=["closed", "open"])
@pytest.mark.parametrize("kind", WRONG_ELSEWHERE)
def test_size_that_runs_and_gives_something_else_stays_fixed(
    tmp_path: Path, kind: str, declared: bool
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(WRONG_ELSEWHERE[kind])
    if declared:
        for axis, name in ((2, "height"), (3, "width")):
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    size = (64, 64) if declared else None
    adoption = adopted(tmp_path, model, AdoptRequest(NAMES, pixel_values=PLAIN, size=size))

    assert not adoption.contract.input.dynamic_size
    assert "cells differ by up to" in size_note(adoption)


def test_rows_that_are_all_alike_prove_nothing(tmp_path: Path) -> None:
    model = tiny_yolox_model()
    (weight,) = [tensor for tensor in model.graph.initializer if tensor.name == "weight"]
    weight.CopyFrom(numpy_helper.from_array(np.zeros((8, 3, 1, 1), np.float32), "weight"))
    adoption = adopted(tmp_path, model)

    assert not adoption.contract.input.dynamic_size
    assert "cannot be told apart" in size_note(adoption)


def looking_round() -> onnx.ModelProto:
    """A tiny model that first looks beyond each of its squares, with steps and without."""
    # Small enough for boxes to stay about their cells.
    kernels = np.random.default_rng(3).normal(0, 0.2, (2, 3, 3, 3, 3)).astype(np.float32)
    window = {"kernel_shape": [3, 3], "pads": [1] * 4}
    pool = {"kernel_shape": [5, 5], "pads": [2] * 4, "strides": [1, 1]}
    steps = [
        helper.make_node("Conv", ["pixels", "first"], ["edges"], **window),
        helper.make_node("MaxPool", ["edges"], ["spots"], **pool),
        helper.make_node("Conv", ["spots", "second"], ["half"], strides=[2, 2], **window),
        helper.make_node("Resize", ["half", "region", "scales"], ["planes"]),
    ]
    region, scales = np.array([], np.float32), np.array([1, 1, 2, 2], np.float32)
    first, second = kernels
    constants = {"first": first, "second": second, "region": region, "scales": scales}
    return with_steps(steps, constants)


def test_windows_that_look_beyond_the_image_do_not_hinder(tmp_path: Path) -> None:
    assert adopted(tmp_path, looking_round()).contract.input.dynamic_size


def test_cells_of_a_narrowed_model_see_their_own_square_and_all_of_it() -> None:
    model = narrow_windows(looking_round())
    image = noise(64, 64)[:1]
    for x in range(40, 48):
        painted = image.copy()
        painted[0, 29, x] ^= 255
        changed = (rows(model, image) != rows(model, painted)).any(axis=2)
        # At stride 8, column 5 of row 3; at 16, column 2 of row 1; at 32, column 1 of row 0.
        assert np.flatnonzero(changed).tolist() == [3 * 8 + 5, 64 + 1 * 4 + 2, 64 + 16 + 1]


def test_a_narrowed_model_gives_the_same_of_one_colour() -> None:
    model = looking_round()
    plain = np.full((1, 64, 64, 3), (10, 200, 90), np.uint8)
    away_from_the_border = 3 * 8 + 3
    found, expected = (rows(each, plain)[0] for each in (narrow_windows(model), model))
    np.testing.assert_allclose(
        found[away_from_the_border], expected[away_from_the_border], rtol=1e-4
    )


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (416, 416), (320, 640)])
def test_other_sizes_are_smaller_and_larger_along_each_axis(size: tuple[int, int]) -> None:
    others = other_sizes(*size)
    for axis, side in enumerate(size):
        sides = [other[axis] for other in others]
        assert max(sides) > side
        assert min(sides) < side or side == 32
        assert all(each % 32 == 0 and each > 0 for each in sides)
    assert any(height != width for height, width in others)


def test_real_nano_gives_at_other_sizes_what_its_weights_give_in_torch(
    tmp_path: Path, shared_data: Path
) -> None:
    weights = shared_data / "weights"
    adopt(weights / "yolox_nano.onnx", tmp_path / "out.onnx", AdoptRequest(COCO_CLASS_NAMES))
    model = build("nano").eval()
    load_weights(model, weights / "yolox_nano_state_bnfused.npz")

    for height, width in ((320, 416), (416, 288), (96, 544)):
        images = noise(height, width)
        planes = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        with torch.no_grad():
            expected = model(planes)
        expected[..., 4:] = expected[..., 4:].sigmoid()
        found = rows(tmp_path / "out.onnx", images)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-3)
