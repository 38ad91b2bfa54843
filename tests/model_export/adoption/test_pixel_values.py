"""Whatever pixel values a file takes, they are found out, or it is refused with what was seen."""

import re
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from model_export.adoption.adopt import Adoption, AdoptRequest, adopt
from model_export.adoption.reading.choice.pixel_choices import are_kin, of_scale
from model_export.data.class_names import COCO_CLASS_NAMES
from model_export.errors import ModelExportError
from model_export.graphs.network import load_network
from model_export.graphs.pixel_values import LEGACY, PixelValues
from service.core.contract import ColorOrder

MEAN, STD = LEGACY.mean, LEGACY.std
CAFFE: Final = PixelValues("BGR", mean=(103.939, 116.779, 123.68))
UNIT: Final = (0.0, 1.0)
# Pixel values that models have, how they are read, and the largest difference of rows from those
# of the released model: raw box values, and scores of 0 to 1.
FOUND: Final = {
    "a mean alone, as Caffe has it": (CAFFE, 0.05),
    "the same, RGB": (PixelValues("RGB", mean=(123.68, 116.779, 103.939)), 0.05),
    "a mean alone, 0 to 1": (PixelValues("RGB", UNIT, MEAN), 2e-3),
    "a mean alone, 0 to 1, BGR": (PixelValues("BGR", UNIT, MEAN[::-1]), 2e-3),
    "a deviation alone": (PixelValues("RGB", UNIT, std=STD), 2e-3),
    "a deviation alone, BGR": (PixelValues("BGR", UNIT, std=STD[::-1]), 2e-3),
    "half and half": (PixelValues("RGB", UNIT, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), 2e-3),
    "ImageNet's, BGR": (PixelValues("BGR", UNIT, MEAN[::-1], STD[::-1]), 2e-3),
    "ImageNet's, of RGB, on BGR": (PixelValues("BGR", UNIT, MEAN, STD), 2e-3),
    "127.5 and 128": (PixelValues("BGR", (-127.5 / 128, 127.5 / 128)), 0.1),
    "legacy": (LEGACY, 2e-3),
}


def nano_that_takes(values: PixelValues, source: Path) -> onnx.ModelProto:
    """YOLOX-nano, with nodes before it that turn such pixel values into its own."""
    model = onnx.load(source)
    graph, name = model.graph, model.graph.input[0].name
    for node in graph.node:
        node.input[:] = ["plain" if each == name else each for each in node.input]
    shape = (1, 3, 1, 1)
    order = [2, 1, 0] if values.color_order == "RGB" else [0, 1, 2]
    steps = (
        ("Sub", values.shift.reshape(shape)),
        ("Div", values.scale.reshape(shape)),
        ("Gather", np.array(order)),
    )
    nodes, tensor = [], name
    for place, (kind, value) in enumerate(steps):
        graph.initializer.append(numpy_helper.from_array(value, f"by{place}"))
        target = "plain" if place == 2 else f"step{place}"
        options = {"axis": 1} if kind == "Gather" else {}
        nodes.append(helper.make_node(kind, [tensor, f"by{place}"], [target], **options))
        tensor = target
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *kept])
    return model


def adopted(values: PixelValues, source: Path, folder: Path) -> Adoption:
    onnx.save(nano_that_takes(values, source), folder / "theirs.onnx")
    request = AdoptRequest(fixed_size=True)
    return adopt(folder / "theirs.onnx", folder / "out.onnx", request)


def assert_rows_as_released(folder: Path, source: Path, tolerance: float) -> None:
    images = np.random.default_rng(2).integers(0, 256, (1, 416, 416, 3), dtype=np.uint8)
    network = load_network(folder / "out.onnx", (0.0, 255.0))
    found, expected = network.run(images), load_network(source, (0.0, 255.0)).run(images)
    np.testing.assert_allclose(found, expected, atol=tolerance, rtol=1e-3)


@pytest.fixture(name="nano")
def _nano(shared_data: Path) -> Path:
    return shared_data / "weights" / "yolox_nano.onnx"


@pytest.mark.parametrize(
    "kind",
    [
        "a mean alone, as Caffe has it",
        *(pytest.param(each, marks=pytest.mark.heavy) for each in [*FOUND][1:]),
    ],
)
def test_pixel_values_are_found_out(kind: str, nano: Path, tmp_path: Path) -> None:
    values, tolerance = FOUND[kind]
    adoption = adopted(values, nano, tmp_path)

    assert adoption.contract.class_names == COCO_CLASS_NAMES
    assert adoption.contract.input.value_range == (0.0, 255.0)
    assert_rows_as_released(tmp_path, nano, tolerance)


def test_plain_pixels_are_found_out_without_a_doubt(nano: Path, tmp_path: Path) -> None:
    adoption = adopted(PixelValues(), nano, tmp_path)

    assert any("BGR 0 to 255: " in note for note in adoption.notes)
    assert not any("--mean" in note for note in adoption.notes)


def test_numbers_that_were_guessed_are_told(nano: Path, tmp_path: Path) -> None:
    adoption = adopted(PixelValues("BGR", mean=(108.0, 117.0, 121.0)), nano, tmp_path)

    notes = [note for note in adoption.notes if "--mean" in note]
    assert any("was found by trying, and numbers near these" in note for note in notes)


@pytest.mark.heavy
@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_numbers_that_no_picture_tells_apart_are_told(
    color: ColorOrder, nano: Path, tmp_path: Path
) -> None:
    adoption = adopted(PixelValues(color, (-127.5 / 128, 127.5 / 128)), nano, tmp_path)

    (told,) = [note for note in adoption.notes if "was found by trying" in note]
    assert f"it takes {color} -1 to 1 " in told
    assert f"; {color} -0.996094 to 0.996094 would look the same" in told


@pytest.mark.heavy
def test_what_fits_about_as_well_is_told_with_what_it_would_change(
    nano: Path, tmp_path: Path
) -> None:
    adoption = adopted(PixelValues("RGB", (-0.5, 0.5)), nano, tmp_path)

    (told,) = [note for note in adoption.notes if "would fit about as well" in note]
    assert re.match(r"RGB .* it finds \d+ of the \d+ boxes .* differ by up to 0\.\d\d;", told)


@pytest.mark.heavy
def test_contrasts_that_pictures_do_not_tell_apart_are_refused_or_told(
    nano: Path, tmp_path: Path
) -> None:
    """Twice the contrast finds about as much."""
    try:
        told = " ".join(adopted(PixelValues("RGB", (0.0, 255 / 128)), nano, tmp_path).notes)
    except ModelExportError as error:
        told = str(error)
    assert "RGB 0 to 1.99219" in told


def test_values_are_kin_that_differ_by_a_shade() -> None:
    assert are_kin(CAFFE, PixelValues("BGR", (-127.5, 127.5)))
    assert are_kin(PixelValues("RGB", (-1.0, 1.0)), PixelValues("RGB", (-127.5 / 128, 127.5 / 128)))
    assert not are_kin(CAFFE, PixelValues())
    assert not are_kin(CAFFE, PixelValues("RGB", mean=CAFFE.mean))
    assert not are_kin(PixelValues("RGB", UNIT), PixelValues("RGB", (-0.5, 0.5)))
    assert not are_kin(PixelValues("RGB", (-1.0, 1.0)), LEGACY)


def test_rare_values_are_tried_where_their_scale_can_be_meant() -> None:
    near, far = of_scale(PixelValues()), of_scale(LEGACY)
    assert {each.value_range[1] - each.value_range[0] for each in near} == {255.0}
    assert not {*near} & {*far}
    assert near
    assert far
