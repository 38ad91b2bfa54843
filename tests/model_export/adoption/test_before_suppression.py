"""A graph that ends in suppression is cut where its rows are, also where they lie in parts."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from model_export.adoption.adopt import AdoptRequest, adopt
from model_export.errors import ModelExportError
from model_export.graphs.network import load_network
from model_export.graphs.pixel_values import PixelValues
from support.end_to_end import EndToEnd, Maps
from support.onnx_models import STRIDES, calm_yolox_model

NAMES = ("blue", "green", "red")


def tiny_end_to_end(*, plugin: bool = False) -> onnx.ModelProto:
    """A tiny model whose maps are split, joined for all levels, decoded and suppressed."""
    model = calm_yolox_model(batch=1, merged=False)
    graph = model.graph
    levels: list[Maps] = []
    for stride in STRIDES:
        names = [f"{part}{stride}" for part in ("box", "objectness", "classes")]
        for name, columns in zip(names, ([0, 1, 2, 3], [4], [5, 6, 7]), strict=True):
            graph.initializer.append(numpy_helper.from_array(np.array(columns), f"{name}_at"))
            inputs = [f"level{stride}", f"{name}_at"]
            graph.node.append(helper.make_node("Gather", inputs, [name], axis=1))
        levels.append((names[0], names[1], names[2]))
    made = EndToEnd(model, levels, 64).joined()
    if plugin:
        for node in graph.node:
            if node.op_type == "NonMaxSuppression":
                node.op_type, node.domain = "BatchedNMS_TRT", "TRT"
        model.opset_import.append(helper.make_opsetid("TRT", 1))
    return made


@pytest.mark.parametrize("plugin", [False, True])
def test_rows_in_parts_before_suppression_are_taken(plugin: bool, tmp_path: Path) -> None:
    onnx.save(tiny_end_to_end(plugin=plugin), tmp_path / "theirs.onnx")
    request = AdoptRequest(NAMES, pixel_values=PixelValues())
    adoption = adopt(tmp_path / "theirs.onnx", tmp_path / "out.onnx", request)

    assert any("suppression at the end" in note for note in adoption.notes)
    images = np.random.default_rng(3).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    plain = calm_yolox_model(activation=adoption.contract.score_activation)
    onnx.save(plain, tmp_path / "plain.onnx")
    found, expected = (
        load_network(tmp_path / name, (0.0, 255.0)).run(images)
        for name in ("out.onnx", "plain.onnx")
    )
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_suppression_without_objectness_before_it_is_refused(tmp_path: Path) -> None:
    """Scores that are no product cannot be split into objectness and classes."""
    model = tiny_end_to_end()
    for node in model.graph.node:
        if node.op_type == "Mul" and any("Sigmoid" in each for each in _makers(model, node)):
            node.op_type, node.input[:] = "Identity", node.input[:1]
            break
    onnx.save(model, tmp_path / "theirs.onnx")

    with pytest.raises(ModelExportError, match=r"nowhere before it.*without suppression"):
        adopt(tmp_path / "theirs.onnx", tmp_path / "out.onnx", AdoptRequest(NAMES))


def _makers(model: onnx.ModelProto, node: onnx.NodeProto) -> list[str]:
    return [each.op_type for each in model.graph.node if set(each.output) & set(node.input)]


def nano_maps(model: onnx.ModelProto) -> list[Maps]:
    """The maps of released YOLOX-nano: inputs of the Concat of each level, before sigmoids."""
    makers = {name: node for node in model.graph.node for name in node.output}
    heads = [node for node in model.graph.node if node.op_type == "Concat"]
    heads = [
        node
        for node in heads
        if [makers[each].op_type for each in node.input if each in makers]
        == ["Conv", "Sigmoid", "Sigmoid"]
    ]
    return [
        (node.input[0], makers[node.input[1]].input[0], makers[node.input[2]].input[0])
        for node in heads
    ]


@pytest.mark.heavy
@pytest.mark.parametrize("form", ["joined", "by_level"])
def test_nano_with_suppression_gives_the_released_rows(
    form: str, tmp_path: Path, shared_data: Path
) -> None:
    source = shared_data / "weights" / "yolox_nano.onnx"
    model = onnx.load(source)
    made = EndToEnd(model, nano_maps(model), 416)
    onnx.save(made.joined() if form == "joined" else made.by_level(), tmp_path / "theirs.onnx")
    adoption = adopt(tmp_path / "theirs.onnx", tmp_path / "out.onnx", AdoptRequest())

    assert len(adoption.contract.class_names) == 80
    images = np.random.default_rng(2).integers(0, 256, (1, 416, 416, 3), dtype=np.uint8)
    found, expected = (
        load_network(path, (0.0, 255.0)).run(images)[0] for path in (tmp_path / "out.onnx", source)
    )
    if adoption.contract.score_activation == "logits":
        found[:, 4:] = 1 / (1 + np.exp(-found[:, 4:]))
    np.testing.assert_allclose(found, expected, atol=2e-3, rtol=1e-3)
