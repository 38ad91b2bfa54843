"""Pictures of training samples: their boxes, and the cells that SimOTA assigns to them."""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_export.loss.assign import assign
from model_export.loss.boxes import anchors_on
from model_export.report.sheets import class_color, sheet
from model_export.samples.geometry import Picture
from model_export.samples.loader import Batch
from model_export.samples.targets import NO_OBJECT
from service.core.contract import BoxCoding

COLUMNS: Final = 4
MOST: Final = 8


def samples_sheet(batch: Batch, class_names: Sequence[str]) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 BGR: the first samples of a batch with their boxes."""
    return sheet(_pictures(batch), class_names, COLUMNS)


@torch.no_grad()
def assignment_sheet(
    model: nn.Module,
    batch: Batch,
    class_names: Sequence[str],
    coding: BoxCoding,
    center_radius: float,
) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 BGR: the same samples with a dot on each cell that SimOTA assigns.

    A dot has the colour of its object's class, and is larger on a level of larger strides.

    Args:
        model: In evaluation mode; its predictions decide the assignment.
        batch: Training samples, on the CPU.
        class_names: Class id to name.
        coding: How raw values stand for a box.
        center_radius: How far candidates lie from a ground truth's centre at most, in strides.
    """
    device = next(model.parameters()).device
    raw = model(batch.images.to(device, torch.float32)).cpu()
    anchors = anchors_on(raw.device, *batch.images.shape[2:])
    found = assign(raw, batch.targets, anchors, coding, center_radius=center_radius)
    pictures = _pictures(batch)
    for number, picture in enumerate(pictures):
        positive = found.positive[number]
        rows = found.rows[number][positive]
        ids = batch.targets.class_ids[number][found.truth[number][positive]]
        _dot(picture.image, anchors.points_xy()[rows], anchors.strides[rows], ids)
    return sheet(pictures, class_names, COLUMNS)


def _dot(image: NDArray[np.uint8], points: Tensor, strides: Tensor, class_ids: Tensor) -> None:
    marks = zip(points.tolist(), strides.tolist(), class_ids.tolist(), strict=True)
    for (x, y), stride, class_id in marks:
        centre, radius = (int(x), int(y)), max(2, int(stride) // 6)
        red, green, blue = class_color(class_id)
        cv2.circle(image, centre, radius + 1, (0, 0, 0), -1)
        cv2.circle(image, centre, radius, (blue, green, red), -1)


def _pictures(batch: Batch) -> list[Picture]:
    pictures = []
    for number in range(min(MOST, len(batch.images))):
        pixels = np.ascontiguousarray(batch.images[number].permute(1, 2, 0).numpy()).copy()
        class_ids = batch.targets.class_ids[number]
        real = class_ids != NO_OBJECT
        boxes = batch.targets.boxes_xyxy[number][real].numpy()
        pictures.append(Picture(pixels, boxes, class_ids[real].numpy()))
    return pictures
