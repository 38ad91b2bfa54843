"""Adopted graphs in a form that takes less time."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_export.adoption.adopt import AdoptRequest, adopt
from model_export.graphs.focus import fold_focus
from model_export.graphs.network import OnnxNetwork, load_network
from model_export.graphs.pixel_values import PixelValues
from model_export.graphs.prove_axes import largest_difference
from model_export.graphs.simplify import chain_pools, take_bytes
from support.onnx_models import calm_yolox_model as tiny_yolox_model
from support.onnx_models import takers_of_input

PLAIN = PixelValues()
NAMES = ("red", "green", "blue")
RANGE = (0.0, 255.0)
CORNERS = ((0, 0), (1, 0), (0, 1), (1, 1))


def loaded(model: onnx.ModelProto) -> OnnxNetwork:
    return load_network(model.SerializeToString(), RANGE)


def pictures(height: int, width: int) -> Any:
    return np.random.default_rng(3).integers(0, 256, (2, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_an_adopted_graph_takes_bytes_and_answers_the_same(
    tmp_path: Path, dtype: Any, layout: Any
) -> None:
    before = tiny_yolox_model(dtype=dtype, layout=layout)
    source, output = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(before, source)
    spec = adopt(source, output, AdoptRequest(NAMES, pixel_values=PLAIN)).contract.input
    after = load_network(output, RANGE)
    assert (spec.layout, spec.dtype) == (after.image.layout, after.image.dtype) == ("NHWC", "uint8")
    assert spec.dynamic_size
    # TensorRT takes bytes in, and does nothing else with them.
    assert takers_of_input(onnx.load(output)) == {"Cast"}
    images = pictures(64, 64)
    np.testing.assert_array_equal(after.run(images), loaded(before).run(images))


@pytest.mark.parametrize("kept", [False, True])
def test_a_graph_of_other_values_makes_them_unless_it_is_kept(tmp_path: Path, kept: bool) -> None:
    source, output = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(tiny_yolox_model(), source)
    values = PixelValues(value_range=(0.0, 1.0))
    request = AdoptRequest(NAMES, pixel_values=values, keep_graph=kept)
    spec = adopt(source, output, request).contract.input

    assert (spec.layout, spec.dtype) == (("NCHW", "float32") if kept else ("NHWC", "uint8"))
    assert spec.value_range == ((0.0, 1.0) if kept else (0.0, 255.0))
    images = pictures(64, 64)
    before = load_network(source, (0.0, 1.0)).run(images)
    after = load_network(output, spec.value_range).run(images)
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_a_graph_is_kept_when_asked(tmp_path: Path) -> None:
    source, output = tmp_path / "in.onnx", tmp_path / "out.onnx"
    model = tiny_yolox_model()
    onnx.save(model, source)
    adopt(source, output, AdoptRequest(NAMES, pixel_values=PLAIN, keep_graph=True))
    assert list(onnx.load(output).graph.node) == list(model.graph.node)


def focus_model(
    *,
    corners: tuple[tuple[int, int], ...] = CORNERS,
    at_once: bool = False,
    constant_nodes: bool = False,
    step: int = 2,
    **conv: Any,
) -> onnx.ModelProto:
    """Focus in front of a tiny detector: its convolution gives the mean colour of each square.

    Args:
        corners: Row and column of each, in the order in which they are stacked.
        at_once: Take rows and columns by one slice, not by two.
        constant_nodes: Hold what slices take in nodes.
        step: Step of the slices.
        conv: Attributes of the convolution.
    """
    rng = np.random.default_rng(4)
    kernel = rng.uniform(0, 1 / 108, (3, 12, 3, 3)).astype(np.float32)
    tensors = {"kernel": kernel, "end": np.array([2**40]), "step": np.array([step])}
    tensors |= {"down": np.array([2]), "across": np.array([3]), "both": np.array([2, 3])}
    tensors |= {"ends": np.array([2**40] * 2), "steps": np.array([step] * 2)}
    nodes, parts = [], []
    for place, (row, column) in enumerate(corners):
        part = f"part{place}"
        parts.append(part)
        tensors |= {f"row{place}": np.array([row]), f"column{place}": np.array([column])}
        tensors[f"corner{place}"] = np.array([row, column])
        if at_once:
            taken = ["images", f"corner{place}", "ends", "both", "steps"]
            nodes.append(helper.make_node("Slice", taken, [part]))
        else:
            taken = ["images", f"row{place}", "end", "down", "step"]
            nodes.append(helper.make_node("Slice", taken, [f"half{place}"]))
            taken = [f"half{place}", f"column{place}", "end", "across", "step"]
            nodes.append(helper.make_node("Slice", taken, [part]))
    nodes.append(helper.make_node("Concat", parts, ["stacked"], axis=1))
    attributes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]} | conv
    nodes.append(helper.make_node("Conv", ["stacked", "kernel"], ["stem"], **attributes))
    nodes.append(helper.make_node("Resize", ["stem", "", "scales"], ["large"], mode="nearest"))
    tensors["scales"] = np.array([1, 1, 2, 2], np.float32)
    constants = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    model = tiny_yolox_model(dynamic_size=True)
    for node in model.graph.node:
        node.input[:] = ["large" if name == "images" else name for name in node.input]
    held = [helper.make_node("Constant", [], [each.name], value=each) for each in constants]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*(held if constant_nodes else []), *nodes, *rest])
    model.graph.initializer.extend([] if constant_nodes else constants)
    model.opset_import[0].version = 13
    return model


@pytest.mark.parametrize("corners", [CORNERS, CORNERS[::-1], (*CORNERS[:3], CORNERS[0])])
@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("constant_nodes", [False, True])
def test_focus_becomes_one_convolution_that_gives_the_same(
    corners: tuple[tuple[int, int], ...], *, at_once: bool, constant_nodes: bool
) -> None:
    model = focus_model(corners=corners, at_once=at_once, constant_nodes=constant_nodes)
    network = loaded(model)
    folded = fold_focus(model, network)
    assert folded is not None
    onnx.checker.check_model(folded)
    kinds = {node.op_type for node in folded.graph.node}
    assert "Slice" not in kinds
    assert not {"kernel", "corner0", "row0"} & {each.name for each in folded.graph.initializer}
    for size in ((64, 64), (96, 32)):
        images = pictures(*size)
        found, expected = loaded(folded).run(images), network.run(images)
        assert np.ptp(expected) > 1
        assert largest_difference(found, expected) < 1e-5


def test_focus_that_another_node_takes_from_as_well_stays_beside_the_convolution() -> None:
    model = focus_model()
    extra = [
        helper.make_node("ReduceMean", ["stacked"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["stem", "mean"], ["moved"]),
    ]
    place = next(i for i, node in enumerate(model.graph.node) if node.op_type == "Resize")
    model.graph.node[place].input[0] = "moved"
    for node in reversed(extra):
        model.graph.node.insert(place, node)
    folded = fold_focus(model, loaded(model))
    assert folded is not None
    images = pictures(64, 64)
    assert largest_difference(loaded(folded).run(images), loaded(model).run(images)) < 1e-5


@pytest.mark.parametrize(
    "model",
    [
        tiny_yolox_model(),
        focus_model(step=1),
        focus_model(corners=CORNERS[:3]),
        focus_model(strides=[2, 2]),
        focus_model(dilations=[2, 2]),
        focus_model(auto_pad="SAME_UPPER", pads=[0, 0, 0, 0]),
    ],
    ids=["none", "no corners", "three corners", "stride", "dilation", "own padding"],
)
def test_what_is_no_focus_stays(model: onnx.ModelProto) -> None:
    assert fold_focus(model, loaded(tiny_yolox_model())) is None


def pooling_model(sides: tuple[int, ...], **attributes: Any) -> onnx.ModelProto:
    """A tiny detector of a picture's maxima over squares of these sides, weighted and added up."""
    nodes, parts = [], []
    constants = []
    for place, side in enumerate(sides):
        around = {"kernel_shape": [side] * 2, "pads": [side // 2] * 4, "strides": [1, 1]}
        weight = np.array(0.1 + 0.1 * place, np.float32)
        constants.append(numpy_helper.from_array(weight, f"weight{place}"))
        nodes += [
            helper.make_node("MaxPool", ["images"], [f"pool{place}"], **(around | attributes)),
            helper.make_node("Mul", [f"pool{place}", f"weight{place}"], [f"part{place}"]),
        ]
        parts.append(f"part{place}")
    nodes.append(helper.make_node("Sum", parts, ["pooled"]))
    model = tiny_yolox_model(dynamic_size=True)
    for node in model.graph.node:
        node.input[:] = ["pooled" if name == "images" else name for name in node.input]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    model.graph.initializer.extend(constants)
    return model


def sides_of_pools(model: onnx.ModelProto) -> list[int]:
    return [
        attribute.ints[0]
        for node in model.graph.node
        if node.op_type == "MaxPool"
        for attribute in node.attribute
        if attribute.name == "kernel_shape"
    ]


@pytest.mark.parametrize("sides", [(5, 9, 13), (13, 5, 9), (3, 13), (5, 5, 9)])
def test_larger_maxima_are_those_of_smaller_ones_to_the_last_bit(sides: tuple[int, ...]) -> None:
    model = pooling_model(sides)
    chained = chain_pools(model, loaded(model))
    assert chained is not None
    onnx.checker.check_model(chained)
    assert sum(sides_of_pools(chained)) < sum(sides)
    for size in ((64, 64), (32, 96)):
        images = pictures(*size)
        expected = loaded(model).run(images)
        assert np.ptp(expected) > 0.1
        np.testing.assert_array_equal(loaded(chained).run(images), expected)


@pytest.mark.parametrize(
    "model",
    [
        tiny_yolox_model(),
        pooling_model((5,)),
        pooling_model((5, 5)),
        pooling_model((4, 8), pads=[1, 1, 2, 2]),
        pooling_model((3, 5), dilations=[2, 2], pads=[4, 4, 4, 4]),
        pooling_model((3, 5), auto_pad="SAME_UPPER", pads=[0, 0, 0, 0]),
    ],
    ids=["none", "one", "the same", "even sides", "dilation", "own padding"],
)
def test_what_is_not_pooled_over_squares_of_several_sizes_stays(model: onnx.ModelProto) -> None:
    assert chain_pools(model, loaded(tiny_yolox_model())) is None


def test_a_rewrite_that_gives_something_else_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(model: onnx.ModelProto, network: OnnxNetwork) -> onnx.ModelProto | None:
        copy = take_bytes(model, network)
        assert copy is not None
        (weight,) = (each for each in copy.graph.initializer if each.name == "weight")
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.01, "weight"))
        return copy

    source, output = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(tiny_yolox_model(), source)
    monkeypatch.setattr("model_export.graphs.simplify.take_bytes", spoiled)
    adoption = adopt(source, output, AdoptRequest(NAMES, pixel_values=PLAIN))
    assert adoption.contract.input.dtype == "float32"
    assert not any("bytes" in note for note in adoption.notes)


def test_real_nano_is_quickened_and_agrees_on_a_photo(tmp_path: Path, shared_data: Path) -> None:
    source, output = shared_data / "weights" / "yolox_nano.onnx", tmp_path / "nano.onnx"
    notes = adopt(source, output, AdoptRequest(tuple(map(str, range(80))))).notes
    assert any("bytes" in note for note in notes)
    assert any("Focus" in note for note in notes)
    assert any("pooling" in note for note in notes)
    assert sides_of_pools(onnx.load(output)) == [5, 5, 5]
    golden = np.load(shared_data / "golden" / "official_nano_dog.npz")
    letterboxed = golden["letterbox_u8_chw"].transpose(1, 2, 0)[np.newaxis]
    rows = load_network(output, RANGE).run(np.ascontiguousarray(letterboxed))
    assert largest_difference(rows, golden["raw_output"]) < 1e-3


def test_a_fixed_batch_and_size_stay_fixed() -> None:
    copy = take_bytes(tiny_yolox_model(batch=2, height=96), loaded(tiny_yolox_model(batch=2)))
    assert copy is not None
    (given,) = copy.graph.input
    assert given.type.tensor_type.elem_type == TensorProto.UINT8
    shape = [axis.dim_value for axis in given.type.tensor_type.shape.dim]
    assert shape == [2, 96, 64, 3]
