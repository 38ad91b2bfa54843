"""Whatever form a file's output has, the adopted copy gives the same raw rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_export.adoption.adopt import AdoptRequest, adopt
from model_export.adoption.reading.tables import arrangements
from model_export.data.image_files import read_image
from model_export.errors import ModelExportError
from model_export.graphs.network import ImageInput, load_network
from model_export.graphs.pixel_values import LEGACY, PixelValues, take_plain_pixels
from support.onnx_models import calm_yolox_model

NAMES = ("blue", "green", "red")
CELLS = (64, 16, 4)
ROWS, COLUMNS, SIDE = sum(CELLS), 8, 64


class Edit:
    """Nodes appended to a model whose output becomes `rows`."""

    def __init__(self, **facts: Any) -> None:
        self.model = calm_yolox_model(batch=1, **facts)
        self.graph = self.model.graph
        self.graph.node[-1].output[0] = "rows"
        del self.graph.output[:]

    def add(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"tensor{len(self.graph.node)}"
        self.graph.node.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, value: Any) -> str:
        name = f"constant{len(self.graph.initializer)}"
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def part(self, source: str, start: int, stop: int, axis: int) -> str:
        return self.add("Gather", [source, self.constant(np.arange(start, stop))], axis=axis)

    def give(self, *names: str, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
        self.graph.output.extend(helper.make_tensor_value_info(name, kind, None) for name in names)
        return self.model


def transposed() -> onnx.ModelProto:
    edit = Edit()
    return edit.give(edit.add("Transpose", ["rows"], perm=[0, 2, 1]))


def four_axes() -> onnx.ModelProto:
    edit = Edit()
    return edit.give(edit.add("Unsqueeze", ["rows"], axes=[1]))


def without_batch() -> onnx.ModelProto:
    edit = Edit()
    return edit.give(edit.add("Squeeze", ["rows"], axes=[0]))


def extra_output() -> onnx.ModelProto:
    edit = Edit()
    mean = edit.add("ReduceMean", ["rows"], axes=[1, 2], keepdims=0)
    return edit.give("rows", mean)


def maps(*, channels_last: bool, apart: bool) -> onnx.ModelProto:
    """Each level as a map; with `apart` as three: classes, boxes and objectness."""
    edit, names, at = Edit(), [], 0
    for count in CELLS:
        side = int(np.sqrt(count))
        level = edit.part("rows", at, at + count, 1)
        at += count
        bounds = ((5, 8), (0, 4), (4, 5)) if apart else ((0, 8),)
        for start, stop in bounds:
            part = edit.part(level, start, stop, 2)
            shape = edit.constant(np.array([1, side, side, stop - start]))
            shown = edit.add("Reshape", [part, shape])
            turned = edit.add("Transpose", [shown], perm=[0, 3, 1, 2])
            names.append(shown if channels_last else turned)
    return edit.give(*names)


def parts_apart() -> onnx.ModelProto:
    edit = Edit()
    return edit.give(*(edit.part("rows", *bounds, 2) for bounds in ((0, 4), (4, 5), (5, 8))))


def levels_reversed() -> onnx.ModelProto:
    edit = Edit()
    levels = [edit.part("rows", *bounds, 1) for bounds in ((80, 84), (64, 80), (0, 64))]
    return edit.give(edit.add("Concat", levels, axis=1))


def corners(*, unit: float, transpose: bool) -> onnx.ModelProto:
    """Decoded boxes as corners, in pixels or as shares of the image."""
    edit = Edit(decoded=True)
    center, size = edit.part("rows", 0, 2, 2), edit.part("rows", 2, 4, 2)
    half = edit.add("Mul", [size, edit.constant(0.5)])
    box = edit.add(
        "Concat", [edit.add("Sub", [center, half]), edit.add("Add", [center, half])], axis=2
    )
    scaled = edit.add("Mul", [box, edit.constant(unit)])
    rows = edit.add("Concat", [scaled, edit.part("rows", 4, 8, 2)], axis=2)
    return edit.give(edit.add("Transpose", [rows], perm=[0, 2, 1]) if transpose else rows)


def shares() -> onnx.ModelProto:
    """Centre and size as shares of the image: numbers so small that raw offsets could be."""
    edit = Edit(decoded=True)
    box = edit.add("Mul", [edit.part("rows", 0, 4, 2), edit.constant(1 / SIDE)])
    return edit.give(edit.add("Concat", [box, edit.part("rows", 4, 8, 2)], axis=2))


def y_first(*, unit: float, as_corners: bool) -> onnx.ModelProto:
    """Boxes as TensorFlow has them."""
    edit = Edit(decoded=True)
    center, size = (
        edit.add("Gather", ["rows", edit.constant(np.array(pair))], axis=2)
        for pair in ((1, 0), (3, 2))
    )
    half = edit.add("Mul", [size, edit.constant(0.5)])
    if as_corners:
        size = edit.add("Add", [center, half])
        center = edit.add("Sub", [center, half])
    box = edit.add("Concat", [center, size], axis=2)
    scaled = edit.add("Mul", [box, edit.constant(unit)])
    return edit.give(edit.add("Concat", [scaled, edit.part("rows", 4, 8, 2)], axis=2))


def one_sigmoid() -> onnx.ModelProto:
    """Objectness is a probability already, classes are not."""
    edit = Edit()
    objectness = edit.add("Sigmoid", [edit.part("rows", 4, 5, 2)])
    blocks = [edit.part("rows", 0, 4, 2), objectness, edit.part("rows", 5, 8, 2)]
    return edit.give(edit.add("Concat", blocks, axis=2))


FORMS: dict[str, Callable[[], onnx.ModelProto]] = {
    "transposed": transposed,
    "four axes": four_axes,
    "without batch": without_batch,
    "extra output": extra_output,
    "three maps": lambda: maps(channels_last=False, apart=False),
    "three maps, NHWC": lambda: maps(channels_last=True, apart=False),
    "nine maps": lambda: maps(channels_last=False, apart=True),
    "nine maps, NHWC": lambda: maps(channels_last=True, apart=True),
    "parts apart": parts_apart,
    "levels reversed": levels_reversed,
    "corners": lambda: corners(unit=1.0, transpose=False),
    "corners, shares, transposed": lambda: corners(unit=1 / SIDE, transpose=True),
    "shares": shares,
    "corners, y first": lambda: y_first(unit=1.0, as_corners=True),
    "corners, y first, shares": lambda: y_first(unit=1 / SIDE, as_corners=True),
    "center, y first": lambda: y_first(unit=1.0, as_corners=False),
    "one sigmoid": one_sigmoid,
}


def assert_gives_raw_rows(form: str, folder: Path) -> None:
    onnx.save(FORMS[form](), folder / "form.onnx")
    request = AdoptRequest(NAMES, pixel_values=PixelValues())
    contract = adopt(folder / "form.onnx", folder / "out.onnx", request).contract

    images = np.random.default_rng(3).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    onnx.save(calm_yolox_model(activation=contract.score_activation), folder / "plain.onnx")
    found, expected = (
        load_network(folder / name, (0.0, 255.0)).run(images) for name in ("out.onnx", "plain.onnx")
    )
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("form", FORMS)
def test_adopted_form_gives_raw_rows(form: str, tmp_path: Path) -> None:
    assert_gives_raw_rows(form, tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_form_without_raw_rows_inside_is_turned_back(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole(model: onnx.ModelProto, _: Any, reading: Any, *__: Any) -> Any:
        return model, reading.rows, ()

    monkeypatch.setattr("model_export.adoption.read_graph.at_raw_rows", whole)
    assert_gives_raw_rows(form, tmp_path)


def test_fourth_level_is_seen_by_the_number_of_rows() -> None:
    (found,) = arrangements({"output": (1, 5440, 85)}, (512, 512), 80)

    assert found.strides == (8, 16, 32, 64)


@pytest.mark.parametrize("values", [LEGACY, PixelValues("RGB"), PixelValues("BGR", (-1.0, 1.0))])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_graph_makes_its_pixel_values_itself(values: PixelValues, layout: Any) -> None:
    shape = [1, 3, 4, 4] if layout == "NCHW" else [1, 4, 4, 3]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g", [info[0]], [info[1]]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    image = ImageInput("x", layout, "float32", 1, 4, 4)
    pictures = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)

    session = load_network_session(take_plain_pixels(model, image, values))
    (found,) = session.run(None, {"x": PixelValues().of(pictures, image)})

    np.testing.assert_allclose(found, values.of(pictures, image), atol=1e-5)


def load_network_session(model: onnx.ModelProto) -> Any:
    from model_export.graphs.network import open_session  # noqa: PLC0415

    return open_session(model.SerializeToString())


def test_photo_does_not_outvote_the_drawn_objects(tmp_path: Path, shared_data: Path) -> None:
    """On a photo alone, scores read as boxes seem to find more than the right reading does."""
    source = shared_data / "weights" / "yolox_nano.onnx"
    photo = read_image(shared_data / "golden" / "images" / "dog.jpg")
    request = AdoptRequest(photos=(photo,), keep_graph=True, fixed_size=True, force=True)
    adoption = adopt(source, tmp_path / "out.onnx", request)

    assert any("columns box, objectness, classes; boxes raw" in note for note in adoption.notes)


def test_model_that_finds_nothing_is_refused_with_what_was_seen(tmp_path: Path) -> None:
    onnx.save(calm_yolox_model(), tmp_path / "mine.onnx")

    with pytest.raises(ModelExportError, match=r"--try .*--preprocessing"):
        adopt(tmp_path / "mine.onnx", tmp_path / "out.onnx", AdoptRequest(NAMES))
    assert not (tmp_path / "out.onnx").exists()


def test_model_that_sees_objects_on_grey_is_refused(tmp_path: Path) -> None:
    onnx.save(calm_yolox_model(objectness_logit=0.0), tmp_path / "mine.onnx")
    request = AdoptRequest(NAMES, pixel_values=PixelValues())

    with pytest.raises(ModelExportError, match="plain grey"):
        adopt(tmp_path / "mine.onnx", tmp_path / "out.onnx", request)


def test_names_are_not_guessed(tmp_path: Path) -> None:
    onnx.save(calm_yolox_model(), tmp_path / "mine.onnx")

    with pytest.raises(ModelExportError, match=r"3 classes.*--names"):
        adopt(tmp_path / "mine.onnx", tmp_path / "out.onnx", AdoptRequest())


def test_softmax_over_classes_is_refused(tmp_path: Path) -> None:
    """Its scores are not those of a sigmoid, and the logits cannot be had back."""
    edit = Edit(activation="logits")
    blocks = [edit.part("rows", *bounds, 2) for bounds in ((0, 4), (4, 5), (5, 8))]
    blocks[1] = edit.add("Sigmoid", [blocks[1]])
    blocks[2] = edit.add("Softmax", [blocks[2]], axis=2)
    onnx.save(edit.give(edit.add("Concat", blocks, axis=2)), tmp_path / "form.onnx")
    request = AdoptRequest(NAMES, pixel_values=PixelValues())

    with pytest.raises(ModelExportError, match="add up to 1, as after a softmax"):
        adopt(tmp_path / "form.onnx", tmp_path / "out.onnx", request)
    assert not (tmp_path / "out.onnx").exists()


def test_classes_that_are_multiplied_by_objectness_are_refused(tmp_path: Path) -> None:
    edit = Edit(activation="probabilities")
    blocks = [edit.part("rows", *bounds, 2) for bounds in ((0, 4), (4, 5), (5, 8))]
    blocks[2] = edit.add("Mul", [blocks[2], blocks[1]])
    onnx.save(edit.give(edit.add("Concat", blocks, axis=2)), tmp_path / "form.onnx")
    request = AdoptRequest(NAMES, pixel_values=PixelValues())

    with pytest.raises(ModelExportError, match="no class of any row exceeds its objectness"):
        adopt(tmp_path / "form.onnx", tmp_path / "out.onnx", request)
    assert not (tmp_path / "out.onnx").exists()


def test_scores_that_went_through_a_sigmoid_twice_are_refused(tmp_path: Path) -> None:
    edit = Edit(activation="probabilities")
    scores = edit.add("Sigmoid", [edit.part("rows", 4, 8, 2)])
    rows = edit.add("Concat", [edit.part("rows", 0, 4, 2), scores], axis=2)
    onnx.save(edit.give(rows), tmp_path / "form.onnx")
    request = AdoptRequest(NAMES, pixel_values=PixelValues())

    with pytest.raises(ModelExportError, match="through a sigmoid twice"):
        adopt(tmp_path / "form.onnx", tmp_path / "out.onnx", request)
    assert not (tmp_path / "out.onnx").exists()


def refusal(model: onnx.ModelProto, folder: Path) -> str:
    onnx.save(model, folder / "form.onnx")
    request = AdoptRequest(NAMES, pixel_values=PixelValues())
    with pytest.raises(ModelExportError) as refused:
        adopt(folder / "form.onnx", folder / "out.onnx", request)
    assert not (folder / "out.onnx").exists()
    return str(refused.value)


def test_graph_that_draws_random_numbers_is_refused(tmp_path: Path) -> None:
    edit = Edit()
    noise = edit.add("RandomNormalLike", ["rows"], scale=0.01)
    model = edit.give(edit.add("Add", ["rows", noise]))

    assert "the graph draws random numbers" in refusal(model, tmp_path)


def test_output_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    edit = Edit()
    levels = edit.add("SplitToSequence", ["rows"], axis=1)
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    sequence = helper.make_sequence_type_proto(kind)
    edit.graph.output.append(helper.make_value_info(levels, sequence))

    assert f"the output {levels} is seq(tensor(float)), not a tensor" in refusal(
        edit.model, tmp_path
    )


def test_batch_norm_in_training_mode_is_refused(tmp_path: Path) -> None:
    edit = Edit()
    channels = {name: edit.constant(np.ones(sum(CELLS))) for name in ("scale", "mean", "var")}
    bias = edit.constant(np.zeros(sum(CELLS)))
    inputs = ["rows", channels["scale"], bias, channels["mean"], channels["var"]]
    model = edit.give(edit.add("BatchNormalization", inputs))
    model.graph.node[-1].attribute.append(helper.make_attribute("training_mode", 1))

    assert "BatchNormalization is in training mode" in refusal(model, tmp_path)


def test_file_for_the_cpu_of_one_machine_is_refused(tmp_path: Path) -> None:
    model = calm_yolox_model(batch=1)
    model.graph.node[0].domain = "com.microsoft.nchwc"

    assert "for the CPU of one machine" in refusal(model, tmp_path)


def test_many_outputs_of_one_size_cost_no_time() -> None:
    shapes = {f"map{number}": (1, 85, 52, 52) for number in range(60)}

    assert arrangements(shapes, (416, 416), 80) == []


def test_model_that_found_nothing_is_adopted_with_a_note(tmp_path: Path) -> None:
    onnx.save(calm_yolox_model(objectness_logit=-30.0), tmp_path / "mine.onnx")
    request = AdoptRequest(NAMES, pixel_values=PixelValues())

    notes = adopt(tmp_path / "mine.onnx", tmp_path / "out.onnx", request).notes

    assert any("it found nothing on any picture" in note for note in notes)
