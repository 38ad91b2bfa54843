"""The peers run any model in the form that their users have, and find what our server does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from benchmarks.peers.inputs import peers_model
from benchmarks.peers.inputs.peers_model import make_peers_model
from benchmarks.peers.inputs.preparing import (
    check_same_weights,
    comparable_photos,
    find_photos,
    letterbox_of,
    read_contract,
)
from benchmarks.peers.limit import OPTIONS
from benchmarks.peers.official import OfficialDetector, to_json
from benchmarks.peers.outcome.boxes import Box, compare, read_answer
from model_export.errors import ModelExportError
from model_export.graphs.edit import copy_without_shapes
from model_export.graphs.onnx_file import save_with_contract
from service.build import DEFAULT_MODEL, load_engine
from service.engine.base import ImageRows
from service.pipeline.stages import ImageSource, ImageTask, Stages, StageSeconds
from service.settings import Settings
from support.onnx_models import takers_of_input, tiny_yolox_model
from support.peers_models import tiny_model_file
from support.pictures import encode, photo_like

CAMERA = {"dtype": "uint8", "layout": "NHWC"}
FORMS: dict[str, dict[str, Any]] = {
    "as exported": {},
    "logits": {"activation": "logits"},
    "bytes": CAMERA | {"activation": "logits", "dynamic_size": True},
    "bytes, planes": {"dtype": "uint8"},
    "float32, NHWC": {"layout": "NHWC"},
    "float16": {"dtype": "float16", "activation": "logits"},
    "fixed batch": CAMERA | {"batch": 2},
    "RGB": {"color_order": "RGB"},
    "value range": {"value_range": (-20.0, 220.0)},
    "padding": {"pad_value": 0},
    "anchor_point": {"box_coding": "anchor_point", "activation": "logits"},
    "no square": {"height": 96, "width": 64},
}
SIZES = ((100, 60), (64, 64), (37, 90))


def ours(model: Path, pictures: Sequence[bytes]) -> dict[str, list[Box]]:
    """The detections of our server's stages, with square letterboxes."""
    settings = Settings(model=model, device="cpu", letterbox="square", engine_threads=1)
    engine = load_engine(settings)
    stages = Stages(engine.contract, "square", settings.max_image_pixels)
    found = {}
    for number, content in enumerate(pictures):
        task = ImageTask(ImageSource(content), OPTIONS)
        prepared = stages.prepare(task)
        raw = engine.infer([prepared.tensor])[0]
        objects = stages.postprocess(task, prepared, ImageRows(raw), StageSeconds()).detections
        rows = zip(objects.class_ids, objects.scores, objects.boxes_xyxy.tolist(), strict=True)
        found[str(number)] = [Box(int(a), float(b), (c[0], c[1], c[2], c[3])) for a, b, c in rows]
    return found


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_official_pipeline_finds_what_the_service_does(
    tmp_path: Path, form: dict[str, Any]
) -> None:
    model = tiny_model_file(tmp_path, **form)
    made = make_peers_model(model, tmp_path / "peers.onnx")
    official = OfficialDetector(made.path, threads=1)
    pictures = [encode(photo_like(*size, seed)) for size in SIZES for seed in range(4)]
    answers = official.detect(pictures)
    theirs = {str(number): read_answer(to_json(answer)) for number, answer in enumerate(answers)}
    agreement = compare(ours(model, pictures), theirs)
    assert agreement.compared > 20
    assert agreement.differences == ()
    assert agreement.least_iou > 0.99


def test_the_official_pipeline_stops_at_as_many_boxes_as_the_service(tmp_path: Path) -> None:
    model = tiny_model_file(tmp_path, height=256, width=256)
    made = make_peers_model(model, tmp_path / "peers.onnx")
    # White all over: every cell finds something.
    picture = encode(np.full((256, 256, 3), 255, np.uint8))
    (answer,) = OfficialDetector(made.path, threads=1).detect([picture])
    mine = ours(model, [picture])["0"]
    assert len(answer.detections) == len(mine)
    assert [round(box.score, 4) for box in answer.detections] == [
        round(box.score, 4) for box in mine
    ]


def test_the_official_pipeline_refuses_what_is_no_image(tmp_path: Path) -> None:
    made = make_peers_model(tiny_model_file(tmp_path), tmp_path / "peers.onnx")
    with pytest.raises(ValueError, match="cannot be decoded"):
        OfficialDetector(made.path, threads=1).detect([b"no image"])


def test_the_peers_graph_is_what_yolox_exports_look_like(tmp_path: Path) -> None:
    made = make_peers_model(DEFAULT_MODEL, tmp_path / "peers.onnx")
    assert made.changes == (
        "float32 instead of uint8",
        "NCHW instead of NHWC",
        "one size instead of any",
        "sigmoids inside",
    )
    assert made.difference < 1e-5
    model = onnx.load(made.path)
    # No casts or transpositions before the first convolution, and rows in one piece at the end.
    assert takers_of_input(model) == {"Conv"}
    assert "Slice" not in {node.op_type for node in model.graph.node}
    (image,) = model.graph.input
    axes = [axis.dim_param or axis.dim_value for axis in image.type.tensor_type.shape.dim]
    assert axes == ["batch", 3, 384, 384]
    assert read_contract(made.path) == made.contract
    assert made.contract.score_activation == "probabilities"


def test_a_model_that_has_the_form_stays_as_it_is(tmp_path: Path) -> None:
    model = tiny_model_file(tmp_path)
    made = make_peers_model(model, tmp_path / "peers.onnx")
    assert (made.changes, made.difference) == ((), 0.0)
    assert onnx.load(made.path).graph.node == onnx.load(model).graph.node


def test_a_graph_that_needs_its_own_input_gets_it_from_the_planes(tmp_path: Path) -> None:
    model = tiny_yolox_model(objectness_logit=-3.0, **CAMERA)
    graph = model.graph
    graph.node[0].input[0] = "seen"
    graph.node.insert(0, helper.make_node("Identity", ["images"], ["seen"]))
    file = tiny_model_file(tmp_path, activation="logits", **CAMERA)
    save_with_contract(model, read_contract(file), file)
    made = make_peers_model(file, tmp_path / "peers.onnx")
    assert made.difference < 1e-5
    nodes = onnx.load(made.path).graph.node
    assert [node.op_type for node in nodes[:3]] == ["Transpose", "Cast", "Identity"]


def test_rows_that_differ_stop_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_model, "_score_rewrites", lambda _: (copy_without_shapes,))
    model = tiny_model_file(tmp_path, activation="logits")
    with pytest.raises(ModelExportError, match="its rows would differ by"):
        make_peers_model(model, tmp_path / "peers.onnx")
    assert not (tmp_path / "peers.onnx").exists()


def test_another_way_to_probabilities_is_tried_where_the_first_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_model, "put_sigmoids_into_head", copy_without_shapes)
    made = make_peers_model(DEFAULT_MODEL, tmp_path / "peers.onnx")
    assert made.difference < 1e-5
    assert "Slice" in {node.op_type for node in onnx.load(made.path).graph.node}


def test_a_graph_that_fails_on_other_batches_stops_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(model: onnx.ModelProto, *_: object) -> onnx.ModelProto:
        return model

    monkeypatch.setattr(peers_model, "open_batch_axis", leave)
    with pytest.raises(ModelExportError, match=r"its rows would be \(3, 42, 8\)"):
        make_peers_model(tiny_model_file(tmp_path, batch=2), tmp_path / "peers.onnx")


# The other inputs


def test_a_file_without_a_contract_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelExportError, match="cannot load"):
        read_contract(tmp_path / "missing.onnx")
    onnx.save(tiny_yolox_model(), tmp_path / "bare.onnx")
    with pytest.raises(ModelExportError, match="no model contract"):
        read_contract(tmp_path / "bare.onnx")


def test_the_peers_and_ours_run_the_same_weights(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("ours", "peers")]
    for folder in folders:
        folder.mkdir()
    mine, theirs = tiny_model_file(folders[0], version="2"), tiny_model_file(folders[1])
    with pytest.raises(ModelExportError, match="adopt both of one file"):
        check_same_weights(mine, theirs)
    check_same_weights(mine, mine)


def test_rectangles_are_what_ours_does_with_open_sizes(tmp_path: Path) -> None:
    fixed = read_contract(tiny_model_file(tmp_path))
    free = read_contract(tiny_model_file(tmp_path, dynamic_size=True))
    assert letterbox_of([], fixed) == "square"
    assert letterbox_of([], free) == "rectangle"
    assert letterbox_of(["--letterbox", "square"], free) == "square"


def test_only_jpegs_are_sent_and_always_in_the_same_order(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.JPEG", "c.png", "d.txt"):
        (tmp_path / name).touch()
    assert [photo.name for photo in find_photos(tmp_path)] == ["a.JPEG", "b.jpg"]
    assert find_photos([tmp_path / "b.jpg", tmp_path / "c.png"]) == [tmp_path / "b.jpg"]
    with pytest.raises(ModelExportError, match="no JPEG files"):
        find_photos([])
    with pytest.raises(ModelExportError, match="no folder"):
        find_photos(tmp_path / "missing")


def picture_file(path: Path, side: int) -> Path:
    pixels: NDArray[np.uint8] = photo_like(side, side)
    path.write_bytes(encode(pixels, "JPEG"))
    return path


def test_boxes_are_compared_where_ours_decodes_all_the_pixels(tmp_path: Path) -> None:
    contract = read_contract(tiny_model_file(tmp_path))
    sides = {"a": 64, "b": 400, "c": 128, "d": 96}
    a, b, c, d = (picture_file(tmp_path / f"{name}.jpg", sides[name]) for name in sides)
    assert comparable_photos([a, b, c, d], contract, 9) == [a, c, d]
    assert comparable_photos([b, a, c, d], contract, 2) == [a, c]
    with pytest.raises(ModelExportError, match="boxes cannot be compared"):
        comparable_photos([b], contract, 9)
    (tmp_path / "no.jpg").write_bytes(b"no image")
    with pytest.raises(ModelExportError, match=r"no\.jpg"):
        comparable_photos([tmp_path / "no.jpg"], contract, 9)
