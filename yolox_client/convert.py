"""Results as arrays and pictures; apart from the rest, because this needs NumPy and Pillow."""

import io
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image, ImageOps

from yolox_client.drawing.boxes import DrawnBox, draw_boxes
from yolox_client.images import Channels, ImageInput, PixelForm, as_file
from yolox_client.results import ImageResult

if TYPE_CHECKING:
    import supervision


def supervision_detections(result: ImageResult) -> "supervision.Detections":
    """The detections as `supervision` has them; `data` holds the class names.

    Raises:
        ModuleNotFoundError: The package is not installed.
    """
    import supervision  # noqa: PLC0415 - an extra, and slow to import

    found = result.detections
    if not found:
        return supervision.Detections.empty()
    tracks = [each.track_id for each in found]
    return supervision.Detections(
        xyxy=np.array([each.box for each in found], np.float32),
        confidence=np.array([each.score for each in found], np.float32),
        class_id=np.array([each.class_id for each in found], np.int64),
        tracker_id=None if None in tracks else np.array(tracks, np.int64),
        data={"class_name": np.array([each.class_name for each in found])},
    )


def drawn(result: ImageResult, image: ImageInput, channels: str | None = None) -> Image.Image:
    """The upright image with the boxes and labels of its detections.

    Raises:
        UnusableImageError: The file cannot be read.
        ValueError: The image has another size than the detections.
    """
    form = PixelForm(cast("Channels | None", channels))
    picture = upright(Image.open(io.BytesIO(as_file(image, form).content)))
    if picture.size != (result.width, result.height):
        raise ValueError(
            f"the detections are of an image of {result.width} x {result.height} pixels, and this "
            f"one has {picture.width} x {picture.height}"
        )
    draw_boxes(picture, drawn_boxes(result))
    return picture


def drawn_boxes(result: ImageResult) -> list[DrawnBox]:
    """Each detection as a box in the colour of its class; of a tracked one, that of its track."""
    return [
        DrawnBox.of_class(
            each.box,
            each.class_id if each.track_id is None else each.track_id,
            f"{'' if each.track_id is None else f'#{each.track_id} '}"
            f"{each.class_name} {each.score:.2f}",
        )
        for each in result.detections
    ]


def upright(picture: Image.Image) -> Image.Image:
    """An RGB picture as a viewer shows it, with transparency laid on white."""
    turned = ImageOps.exif_transpose(picture)
    if "A" not in turned.mode and "transparency" not in turned.info:
        return turned.convert("RGB")
    ground = Image.new("RGBA", turned.size, "white")
    return Image.alpha_composite(ground, turned.convert("RGBA")).convert("RGB")
