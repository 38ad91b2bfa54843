"""Each form in which people have YOLOX-nano gives the boxes of the released one, or is refused."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray

from model_export.adoption.adopt import AdoptRequest, adopt
from model_export.adoption.reading.evidence import OPTIONS, overlaps
from model_export.data.image_files import read_image
from model_export.errors import ModelExportError
from model_export.graphs.network import OnnxNetwork, load_network
from model_export.graphs.pixel_values import PixelValues
from service.core.contract import ModelContract
from service.core.decode import Detections
from service.core.letterbox import fit_to_model
from service.core.postprocess import find_objects
from support.made_once import made_once

REPOSITORY = Path(__file__).parents[3]
SCRIPT = REPOSITORY.parent / "shared" / "cases" / "model_forms.py"
# The script knows this module by an earlier name.
RUN = (
    "import runpy, sys, model_export.model.checkpoint as module\n"
    "sys.modules['model_export.checkpoint'] = module\n"
    "sys.argv = sys.argv[1:]\n"
    "runpy.run_path(sys.argv[0], run_name='__main__')\n"
)
ADOPTED: Final = (
    *("logits", "external", "decoded", "decoded_xyxy", "decoded_unit"),
    *("levels3", "levels9", "three_outputs", "levels_reversed"),
    *("transposed", "four_axes", "rows2d", "extra_output", "obj_sigmoid_cls_logits"),
    *("columns_obj_cls_box", "columns_box_cls_obj"),
    *("legacy_mean_std", "rgb_unit", "rgb_255", "minus1_1", "nhwc", "uint8_nhwc"),
    *("static_batch4", "dynamic_all", "resize_inside", "size_544x960", "size_1088x1920"),
    *("nms_num_dets", "nms_dets_labels", "wrong_tensorrt_nms", "p6"),
)
REFUSED: Final = {
    "wrong_yolov8": "no objectness column.*YOLOv8",
    "wrong_yolov5": "YOLOv5",
    "wrong_fcos_ltrb": "FCOS",
}
PHOTOS: Final = 12
# Overlap above which, and difference of scores below which, two boxes are equal.
SAME_PLACE: Final = 0.98
SAME_SCORE: Final = 0.01
# The form with a fourth level has the rows of stride 64, 8 by 8 at 512 pixels, from the last ones
# of stride 32.
FOURTH_LEVEL: Final = 64
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="session")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not SCRIPT.is_file():
        pytest.skip("the script that makes the forms (shared/cases beside the checkout) is missing")
    return made_once(tmp_path_factory, "forms", make_forms)


def make_forms(folder: Path) -> None:
    command = [sys.executable, "-c", RUN, str(SCRIPT), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, capture_output=True)


@pytest.fixture(scope="session")
def photos(shared_data: Path) -> list[Pixels]:
    paths = sorted((shared_data / "coco-subset" / "images").iterdir())
    return [read_image(path) for path in paths[:: len(paths) // PHOTOS]][:PHOTOS]


@pytest.fixture(scope="session")
def released(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> OnnxNetwork:
    output = tmp_path_factory.mktemp("released") / "nano.onnx"
    request = AdoptRequest(pixel_values=PixelValues(), keep_graph=True)
    adopt(shared_data / "weights" / "yolox_nano.onnx", output, request)
    return load_network(output, (0.0, 255.0))


def boxes(network: OnnxNetwork, contract: ModelContract, photo: Pixels) -> Detections:
    """Square letterbox, joint score, hard suppression across classes."""
    image, letterbox = fit_to_model(photo, contract, "square")
    rows = network.run_singly(image[np.newaxis])[0]
    if len(rows) + FOURTH_LEVEL == contract.num_cells(*image.shape[:2]):
        rows = np.concatenate([rows, rows[-FOURTH_LEVEL:]])
    return find_objects(rows, letterbox, contract, OPTIONS)


def equal_boxes(found: Detections, expected: Detections) -> int:
    """The number of boxes of the same class, place and score."""
    if not len(found) or not len(expected):
        return 0
    alike = overlaps(found.boxes_xyxy, expected.boxes_xyxy) > SAME_PLACE
    alike &= found.class_ids[:, None] == expected.class_ids[None]
    alike &= np.abs(found.scores[:, None] - expected.scores[None]) < SAME_SCORE
    return int(min(alike.any(axis=0).sum(), alike.any(axis=1).sum()))


@pytest.mark.heavy
@pytest.mark.timeout(1800)
def test_no_form_is_left_out(forms: Path) -> None:
    assert sorted(path.stem for path in forms.glob("*.onnx")) == sorted([*ADOPTED, *REFUSED])


@pytest.mark.heavy
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ADOPTED)
def test_a_public_form_gives_the_released_boxes(
    name: str, forms: Path, photos: list[Pixels], released: OnnxNetwork, tmp_path: Path
) -> None:
    output = tmp_path / "adopted.onnx"
    contract = adopt(forms / f"{name}.onnx", output, AdoptRequest()).contract
    network = load_network(output, contract.input.value_range)
    spoken = ModelContract.from_metadata(released.metadata)
    usual = replace(contract, score_activation=spoken.score_activation)
    found = [boxes(network, contract, photo) for photo in photos]
    expected = [boxes(released, usual, photo) for photo in photos]
    assert sum(map(len, expected)) > PHOTOS
    assert list(map(len, found)) == list(map(len, expected))
    assert list(map(equal_boxes, found, expected)) == list(map(len, expected))


@pytest.mark.heavy
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", REFUSED)
def test_another_detector_is_refused_by_its_name(name: str, forms: Path, tmp_path: Path) -> None:
    output = tmp_path / "adopted.onnx"
    with pytest.raises(ModelExportError, match=REFUSED[name]):
        adopt(forms / f"{name}.onnx", output, AdoptRequest())
    assert not output.exists()
