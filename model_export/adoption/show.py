"""Show how an adoption goes, and draw what the adopted file finds on a picture."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from model_export.adoption.reading.drawn import Pixels
from model_export.adoption.reading.evidence import OPTIONS
from model_export.adoption.reading.pictures import first_pictures
from model_export.errors import ModelExportError
from model_export.graphs.network import load_network
from model_export.graphs.pixel_values import PixelValues
from service.core.contract import ModelContract
from service.core.decode import Detections
from service.core.letterbox import fit_to_model
from service.core.postprocess import find_objects

LINE_COLOR: Final = (255, 0, 60)
# Commands that end sooner show no line.
PATIENCE_S: Final = 2.0
# Then a line in this time.
LINE_EVERY_S: Final = 5.0
# Objects of a photo that are listed.
MOST_TOLD: Final = 10


def show_progress() -> Callable[[str], None]:
    """A function that writes a line on the current step to stderr, now and then."""
    state = {"shown": time.monotonic() + PATIENCE_S - LINE_EVERY_S}

    def show(step: str) -> None:
        if time.monotonic() - state["shown"] >= LINE_EVERY_S:
            state["shown"] = time.monotonic()
            sys.stderr.write(f"{step} ...\n")

    return show


def show_found(
    contract: ModelContract, model: Path, photo: Pixels | None, target: Path | None
) -> Detections:
    """Run an adopted file on a photo, and write the photo with the boxes drawn on it if asked.

    Args:
        contract: The file's contract.
        model: The file.
        photo: (h, w, 3) uint8 BGR; None takes the drawn objects.
        target: The picture to write, if any; its name says the format.

    Returns:
        The boxes, in pixels of the photo.

    Raises:
        ModelExportError: The picture cannot be written.
    """
    spec = contract.input
    if photo is None:
        photo = first_pictures((spec.height, spec.width), contract.class_names)[0].image
    image, letterbox = fit_to_model(photo, contract, "square")
    network = load_network(model, spec.value_range)
    values = PixelValues(spec.color_order, spec.value_range)
    tensor = np.repeat(values.of(image[np.newaxis], network.image), spec.batch or 1, axis=0)
    (rows,) = network.session.run(None, {spec.name: tensor})
    found = find_objects(rows[0], letterbox, contract, OPTIONS)
    if target is None:
        return found
    try:
        _drawn(photo, found, contract).save(target)
    except (OSError, ValueError) as error:
        raise ModelExportError(f"cannot write {target}: {error}") from error
    return found


def found_in_words(found: Detections, contract: ModelContract) -> str:
    """`dog 0.86, car 0.80`, the best ten."""
    told = [
        f"{contract.class_names[number]} {score:.2f}"
        for score, number in zip(found.scores.tolist(), found.class_ids.tolist(), strict=True)
    ]
    return ", ".join(told[:MOST_TOLD]) or "nothing"


def _drawn(photo: Pixels, found: Detections, contract: ModelContract) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(photo[:, :, ::-1]))
    draw = ImageDraw.Draw(picture)
    for box, score, number in zip(
        found.boxes_xyxy.tolist(), found.scores.tolist(), found.class_ids.tolist(), strict=True
    ):
        left, top, right, bottom = box
        draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=LINE_COLOR, width=2)
        label = f"{contract.class_names[number]} {score:.2f}"
        draw.text((left + 3, top + 2), label, fill=LINE_COLOR)
    return picture
