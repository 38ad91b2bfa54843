"""Each form in which people have YOLOX-nano gives the boxes of the released one, or is refused."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model_export.adoption.adopt import AdoptRequest, adopt
from model_export.adoption.reading.evidence import OPTIONS, holds
from model_export.data.image_files import read_image
from model_export.errors import ModelExportError
from model_export.graphs.network import OnnxNetwork, load_network
from model_export.graphs.pixel_values import PixelValues
from service.core.contract import ModelContract
from service.core.decode import Detections
from service.core.letterbox import fit_to_model
from service.core.postprocess import find_objects

REPOSITORY = Path(__file__).parents[3]
SCRIPT = REPOSITORY.parent / "shared" / "cases" / "model_forms.py"
# The script knows this module by an earlier name.
RUN = (
    "import runpy, sys, model_export.model.checkpoint as module\n"
    "sys.modules['model_export.checkpoint'] = module\n"
    "sys.argv = sys.argv[1:]\n"
    "runpy.run_path(sys.argv[0], run_name='__main__')\n"
)
REFUSED = {
    "wrong_yolov8": "no objectness column.*YOLOv8",
    "wrong_yolov5": "YOLOv5",
    "wrong_fcos_ltrb": "FCOS",
}
PHOTOS = 12
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="session")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not SCRIPT.is_file():
        pytest.skip("the script that makes the forms (shared/cases beside the checkout) is missing")
    folder = tmp_path_factory.mktemp("forms")
    command = [sys.executable, "-c", RUN, str(SCRIPT), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, capture_output=True)
    return folder


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
    if len(rows) < contract.num_cells(*image.shape[:2]):
        # The form with a fourth level repeats the last rows of the third.
        rows = np.concatenate([rows, rows[len(rows) - contract.num_cells(*image.shape[:2]) :]])
    return find_objects(rows, letterbox, contract, OPTIONS)


@pytest.mark.heavy
@pytest.mark.timeout(3600)
def test_every_public_form_gives_the_released_boxes_or_is_refused_by_name(
    forms: Path, photos: list[Pixels], released: OnnxNetwork, tmp_path: Path
) -> None:
    paths = sorted(forms.glob("*.onnx"))
    assert len(paths) == 35
    for path in paths:
        output = tmp_path / path.name
        if path.stem in REFUSED:
            with pytest.raises(ModelExportError, match=REFUSED[path.stem]):
                adopt(path, output, AdoptRequest())
            continue
        contract = adopt(path, output, AdoptRequest()).contract
        network = load_network(output, (0.0, 255.0))
        spoken = ModelContract.from_metadata(released.metadata)
        usual = replace(contract, score_activation=spoken.score_activation)
        for photo in photos:
            found, expected = boxes(network, contract, photo), boxes(released, usual, photo)
            assert len(found) == len(expected), path.stem
            assert holds(found, expected), path.stem
