"""A third-party file is adopted only as what it proves to be."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from model_export.adoption.adopt import AdoptRequest, adopt, default_name
from model_export.data.class_names import COCO_CLASS_NAMES
from model_export.errors import ModelExportError
from model_export.graphs.network import load_network
from model_export.graphs.pixel_values import PixelValues
from service.core.contract import METADATA_KEY, ModelContract, Provenance, Recommended
from support.onnx_models import calm_yolox_model as tiny_yolox_model

NAMES = ("blue", "green", "red")
# Tiny models find no drawn object, so their pixel values have to be stated.
PLAIN = AdoptRequest(NAMES, pixel_values=PixelValues())


def save(model: onnx.ModelProto, folder: Path, name: str = "my_model.onnx") -> Path:
    path = folder / name
    onnx.save(model, path)
    return path


def adopt_tiny(folder: Path, request: AdoptRequest | None = None, **model: Any) -> ModelContract:
    source = save(tiny_yolox_model(**model), folder)
    return adopt(source, folder / "out.onnx", request or PLAIN).contract


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def assert_refused(folder: Path, words: str, model: onnx.ModelProto, **request: Any) -> None:
    source, output = save(model, folder), folder / "out" / "out.onnx"
    with pytest.raises(ModelExportError, match=words):
        adopt(source, output, replace(PLAIN, **request))
    assert not output.parent.exists()


@pytest.mark.parametrize("batch", [None, 1, 2])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_input_is_read_off_the_graph(tmp_path: Path, dtype: str, layout: str, batch: int) -> None:
    request = replace(PLAIN, keep_graph=True)
    contract = adopt_tiny(tmp_path, request, dtype=dtype, layout=layout, batch=batch, height=96)

    assert (contract.input.name, contract.input.dtype) == ("images", dtype)
    assert (contract.input.layout, contract.input.height, contract.input.width) == (layout, 96, 64)
    assert contract.input.dynamic_size
    assert contract.input.batch is None


def test_written_file_carries_the_contract(tmp_path: Path) -> None:
    request = replace(
        PLAIN,
        name="mine",
        version="7",
        recommended=Recommended(confidence=0.3, nms="hard"),
        provenance=Provenance(dataset="my photos"),
    )
    contract = adopt_tiny(tmp_path, request)

    metadata = session(tmp_path / "out.onnx").get_modelmeta().custom_metadata_map
    assert ModelContract.from_metadata(metadata) == contract
    assert (contract.name, contract.version, contract.class_names) == ("mine", "7", NAMES)
    assert (contract.recommended.nms, contract.provenance.dataset) == ("hard", "my photos")


def test_joint_scores_are_recommended_unless_others_are_stated(tmp_path: Path) -> None:
    usual = Recommended(confidence=0.3, score_by="joint", nms="hard", iou=0.45, class_agnostic=True)
    assert adopt_tiny(tmp_path).recommended == usual

    stated = Recommended(score_by="objectness", confidence=0.6)
    own = replace(PLAIN, recommended=stated, force=True)
    expected = replace(usual, score_by="objectness", confidence=0.6)
    assert adopt_tiny(tmp_path, own).recommended == expected
    again = replace(PLAIN, recommended=Recommended(iou=0.6), size=(64, 64), force=True)
    carried = adopt(tmp_path / "out.onnx", tmp_path / "again.onnx", again).contract.recommended
    assert carried == replace(expected, iou=0.6)


def test_article_coding_keeps_the_thresholds_of_the_article(tmp_path: Path) -> None:
    request = replace(PLAIN, box_coding="anchor_point")

    assert adopt_tiny(tmp_path, request).recommended == Recommended()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"1": "b", "0": "a", "2": "c"}', ("a", "b", "c")),
        ("{0: 'a', 1: 'b', 2: 'c'}", ("a", "b", "c")),
        ('["a", "b", "c"]', ("a", "b", "c")),
        ("a, b, c", ("a", "b", "c")),
        ("a\nb\nc\n", ("a", "b", "c")),
    ],
)
def test_names_in_the_file_are_taken_and_told(
    tmp_path: Path, text: str, names: tuple[str, ...]
) -> None:
    model = tiny_yolox_model()
    model.metadata_props.add(key="names", value=text)
    request = replace(PLAIN, class_names=None)
    adoption = adopt(save(model, tmp_path), tmp_path / "out.onnx", request)

    assert adoption.contract.class_names == names
    assert "3 classes are named in the file" in adoption.notes


@pytest.mark.parametrize("decoded", [False, True])
def test_large_images_are_read_on_small_ones_if_the_graph_takes_them(
    tmp_path: Path, decoded: bool
) -> None:
    model = tiny_yolox_model(height=1088, width=1920, batch=1, decoded=decoded)
    told: list[str] = []
    contract = adopt(save(model, tmp_path), tmp_path / "out.onnx", PLAIN, told.append).contract

    assert (contract.input.height, contract.input.width) == (1088, 1920)
    assert contract.input.dynamic_size
    assert any("416x416" in line for line in told) != decoded
    assert any("1088x1920" in line for line in told)


def quantised(folder: Path) -> Path:
    """YOLOX rows computed with 8-bit weights."""
    from onnxruntime.quantization import quantize_dynamic  # noqa: PLC0415

    source = save(tiny_yolox_model(), folder, "float.onnx")
    quantize_dynamic(source, folder / "int8.onnx")
    return folder / "int8.onnx"


def test_8_bit_model_is_adopted_with_a_warning(tmp_path: Path) -> None:
    notes = adopt(quantised(tmp_path), tmp_path / "out.onnx", PLAIN).notes

    assert any(note.startswith("warning: the model computes with 8-bit") for note in notes)


def test_8_bit_model_is_compared_with_the_float_one(tmp_path: Path) -> None:
    request = replace(PLAIN, float_model=tmp_path / "float.onnx")
    notes = adopt(quantised(tmp_path), tmp_path / "out.onnx", request).notes

    assert any("boxes of float.onnx" in note for note in notes)


def test_8_bit_model_that_makes_no_sense_is_told_to_be_one(tmp_path: Path) -> None:
    request = replace(PLAIN, pixel_values=None)
    with pytest.raises(ModelExportError, match="8-bit integers, which may have ruined it"):
        adopt(quantised(tmp_path), tmp_path / "out.onnx", request)


def test_version_is_the_source_sum_unless_given(tmp_path: Path) -> None:
    contract = adopt_tiny(tmp_path)

    source = (tmp_path / "my_model.onnx").read_bytes()
    assert contract.version == hashlib.sha256(source).hexdigest()[:12]


def test_default_name_has_no_underscores() -> None:
    assert default_name(Path("somewhere/yolox_Nano.onnx")) == "yolox-nano"


@pytest.mark.parametrize("activation", ["logits", "probabilities"])
def test_auto_tells_logits_from_probabilities(tmp_path: Path, activation: str) -> None:
    assert adopt_tiny(tmp_path, activation=activation).score_activation == activation


@pytest.mark.parametrize("activation", ["logits", "probabilities"])
def test_wrong_score_activation_is_refused(tmp_path: Path, activation: str) -> None:
    other = {"logits": "probabilities", "probabilities": "logits"}[activation]
    model = tiny_yolox_model(activation=activation)

    assert_refused(tmp_path, f"they are {activation}", model, score_activation=other)


@pytest.mark.parametrize("batch", [1, 2])
def test_fixed_batch_is_opened(tmp_path: Path, batch: int) -> None:
    contract = adopt_tiny(tmp_path, replace(PLAIN, keep_graph=True), batch=batch)

    images = np.random.default_rng(1).integers(0, 256, (5, 3, 64, 64)).astype(np.float32)
    (batched,) = session(tmp_path / "out.onnx").run(None, {"images": images})
    original = session(tmp_path / "my_model.onnx")
    for image, rows in zip(images, batched, strict=True):
        (alone,) = original.run(None, {"images": np.stack([image] * batch)})
        np.testing.assert_allclose(rows, alone[0], atol=1e-4)
    assert contract.input.batch is None


def test_reshape_target_in_a_constant_node_is_opened(tmp_path: Path) -> None:
    model = tiny_yolox_model(batch=1)
    (target,) = [tensor for tensor in model.graph.initializer if tensor.name == "rows_shape"]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["rows_shape"], value=target))
    model.graph.initializer.remove(target)

    adoption = adopt(save(model, tmp_path), tmp_path / "out.onnx", PLAIN)

    assert adoption.contract.input.batch is None


def mixing_model(batch: int | None) -> onnx.ModelProto:
    """A model that is right for one image, and adds the mean of the batch to each of several."""
    model = tiny_yolox_model(batch=batch)
    final = model.graph.node[-1]
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["lone"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Add", ["lone", "mean"], ["output"]),
        ]
    )
    final.output[0] = "lone"
    return model


@pytest.mark.parametrize("declared", [None, 1])
def test_batch_that_disagrees_stays_at_one(tmp_path: Path, declared: int | None) -> None:
    source, output = save(mixing_model(declared), tmp_path), tmp_path / "out.onnx"
    adoption = adopt(source, output, replace(PLAIN, fixed_size=True, keep_graph=True))

    assert adoption.contract.input.batch == 1
    assert any("batch size 1 only" in note for note in adoption.notes)
    assert onnx.load(output).graph == onnx.load(source).graph


def test_batch_that_does_not_run_stays_at_one(tmp_path: Path) -> None:
    model = tiny_yolox_model(batch=1)
    model.graph.node[-1].output[0] = "rows"
    one_row_only = onnx.numpy_helper.from_array(np.zeros((1, 84, 8), np.float32), "zeros")
    model.graph.initializer.append(one_row_only)
    model.graph.node.append(helper.make_node("Concat", ["rows", "zeros"], ["both"], axis=2))
    for name, bound in (("start", [0]), ("end", [8]), ("axis", [2])):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(bound), name))
    model.graph.node.append(helper.make_node("Slice", ["both", "start", "end", "axis"], ["output"]))

    contract = adopt(save(model, tmp_path), tmp_path / "out.onnx", PLAIN).contract

    assert contract.input.batch == 1


def test_open_size_is_the_usual_one_unless_said(tmp_path: Path) -> None:
    source = save(tiny_yolox_model(dynamic_size=True), tmp_path)
    adoption = adopt(source, tmp_path / "out.onnx", PLAIN)

    assert (adoption.contract.input.height, adoption.contract.input.width) == (416, 416)
    assert any("--size" in note for note in adoption.notes)


def test_size_that_contradicts_the_graph_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, "leave --size out", tiny_yolox_model(), size=(96, 96))


def test_size_off_the_grid_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, "multiples of 32", tiny_yolox_model(height=72))


def served_rows(path: Path, images: np.ndarray) -> np.ndarray:
    """Run an adopted file on (N, 64, 64, 3) uint8 images."""
    return load_network(path, (0.0, 255.0)).run(images)


def assert_gives_raw_rows(folder: Path, model: onnx.ModelProto, **raw: Any) -> ModelContract:
    """Adopt a rearranged model: it then gives the rows of the plain one."""
    adoption = adopt(save(model, folder), folder / "out.onnx", PLAIN)
    onnx.save(tiny_yolox_model(**raw), folder / "plain.onnx")
    images = np.random.default_rng(3).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    found = served_rows(folder / "out.onnx", images)
    np.testing.assert_allclose(found, served_rows(folder / "plain.onnx", images), atol=1e-3)
    return adoption.contract


@pytest.mark.parametrize("activation", ["logits", "probabilities"])
def test_decoded_boxes_become_raw(tmp_path: Path, activation: str) -> None:
    model = tiny_yolox_model(decoded=True, activation=activation, batch=1)

    assert_gives_raw_rows(tmp_path, model, activation=activation)


def test_levels_apart_are_joined(tmp_path: Path) -> None:
    assert_gives_raw_rows(tmp_path, tiny_yolox_model(merged=False))


def test_wrong_number_of_names_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, "--names", tiny_yolox_model(), class_names=("one", "two"))


def test_transposed_output_is_turned(tmp_path: Path) -> None:
    model = tiny_yolox_model()
    model.graph.node[-1].output[0] = "rows"
    model.graph.node.append(helper.make_node("Transpose", ["rows"], ["output"], perm=[0, 2, 1]))
    del model.graph.output[0].type.tensor_type.shape.dim[1:]
    model.graph.output[0].type.tensor_type.ClearField("shape")

    assert_gives_raw_rows(tmp_path, model)


def test_image_input_of_another_form_is_refused(tmp_path: Path) -> None:
    model = tiny_yolox_model()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1

    assert_refused(tmp_path, "cannot load|must be", model)


def test_output_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    model = tiny_yolox_model()
    model.graph.node[-1].output[0] = "rows"
    model.graph.node.append(helper.make_node("Log", ["rows"], ["output"]))

    assert_refused(tmp_path, "inf or nan", model)


def test_names_that_repeat_are_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, "duplicates", tiny_yolox_model(), class_names=("a", "a", "b"))


NO_MODELS = {
    b"": "is empty",
    b"<!DOCTYPE html><html>no model</html>": "is a web page",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n": "git lfs pull",
    b"\x80\x02}q\x00.": "PyTorch checkpoint",
    b"PK\x03\x04cut": "truncated zip",
    b"\x02\x00\x00\x00\x00\x00\x00\x00{}": "safetensors",
    b"\x1c\x00\x00\x00TFL3": "TensorFlow Lite",
    b"\x08\x07\x12\x04cut": "truncated or damaged",
    b"nothing of the kind": "no ONNX file",
}


@pytest.mark.parametrize(("content", "words"), NO_MODELS.items())
def test_file_that_is_no_model_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    source = tmp_path / "page.onnx"
    source.write_bytes(content)

    with pytest.raises(ModelExportError, match=words):
        adopt(source, tmp_path / "out.onnx", PLAIN)


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelExportError, match="cannot read"):
        adopt(tmp_path / "none.onnx", tmp_path / "out.onnx", PLAIN)


def test_adopted_file_is_adopted_again_only_by_force(tmp_path: Path) -> None:
    adopt_tiny(tmp_path)
    again = tmp_path / "again.onnx"

    with pytest.raises(ModelExportError, match="already carries a contract"):
        adopt(tmp_path / "out.onnx", again, PLAIN)
    request = replace(PLAIN, version="2", size=(64, 64), force=True)
    forced = adopt(tmp_path / "out.onnx", again, request)

    metadata = {entry.key: entry.value for entry in onnx.load(again).metadata_props}
    assert ModelContract.from_metadata(metadata) == forced.contract
    assert list(metadata) == [METADATA_KEY]


def test_existing_output_is_replaced_only_by_force(tmp_path: Path) -> None:
    (tmp_path / "out.onnx").write_text("precious")

    with pytest.raises(ModelExportError, match="exists"):
        adopt_tiny(tmp_path)
    assert (tmp_path / "out.onnx").read_text() == "precious"
    adopt_tiny(tmp_path, replace(PLAIN, force=True))
    assert session(tmp_path / "out.onnx").get_inputs()[0].name == "images"


def test_output_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ModelExportError, match="cannot write"):
        adopt(
            save(tiny_yolox_model(), tmp_path),
            tmp_path / "file" / "out.onnx",
            PLAIN,
        )


def test_real_nano_is_adopted_with_an_open_batch(tmp_path: Path, shared_data: Path) -> None:
    source, output = shared_data / "weights" / "yolox_nano.onnx", tmp_path / "nano.onnx"
    request = AdoptRequest(COCO_CLASS_NAMES, pixel_values=PixelValues(), keep_graph=True)
    contract = adopt(source, output, request).contract

    images = np.random.default_rng(2).integers(0, 256, (2, 3, 416, 416)).astype(np.float32)
    (batched,) = session(output).run(None, {"images": images})
    for image, rows in zip(images, batched, strict=True):
        (alone,) = session(source).run(None, {"images": image[None]})
        np.testing.assert_allclose(rows, alone[0], atol=1e-4, rtol=1e-4)
    assert (contract.name, contract.version) == ("yolox-nano", "695e750a5d57")
    assert (contract.score_activation, contract.input.batch) == ("probabilities", None)
    assert (contract.input.height, contract.input.width) == (416, 416)
    assert contract.input.dynamic_size
