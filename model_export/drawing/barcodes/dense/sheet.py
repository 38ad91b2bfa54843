"""A picture that symbols are put on, and what happens to it before a detector sees it."""

from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from model_export.drawing.barcodes.labels import Label
from model_export.drawing.barcodes.optics import compressed, photographed
from model_export.drawing.barcodes.surfaces import Pixels
from model_export.samples.geometry import Picture

Random = np.random.Generator
Box = NDArray[np.float32]

# Share of the pictures that stay as software wrote them; the others are scanned or photographed.
PLAIN_SHARE: Final = 0.45
# Longer side of a photographed picture, pixels; larger ones are reduced first.
PHOTO_SIDES: Final = (300, 600)


@dataclass(slots=True, eq=False)
class Sheet:
    """A picture that is being drawn.

    Attributes:
        image: (h, w, 3) uint8, BGR.
        boxes: The box of each symbol, (4,) float32, pixels.
        class_ids: The class of each symbol.
        finest: Side in pixels of its smallest module.
    """

    image: Pixels
    boxes: list[Box] = field(default_factory=list)
    class_ids: list[int] = field(default_factory=list)
    finest: float = 4.0

    def add(self, box: Box, class_id: int, module: float) -> None:
        """Note a symbol that was drawn, with the side of its modules in pixels."""
        self.boxes.append(box)
        self.class_ids.append(class_id)
        self.finest = min(self.finest, module)

    def paste(self, print_: Label, class_id: int, x: int, y: int) -> None:
        """Put a print with its top left corner at x, y; all of it must lie in the picture."""
        height, width = print_.image.shape[:2]
        self.image[y : y + height, x : x + width] = print_.image
        self.add(print_.box_xyxy + np.array([x, y] * 2, dtype=np.float32), class_id, print_.module)

    def developed(self, rng: Random) -> Picture:
        """The finished picture: as it is, compressed, or reduced and photographed."""
        choice = rng.random()
        if choice < PLAIN_SHARE:
            return self._picture(self.image, 1.0)
        if choice < PLAIN_SHARE + 0.1:
            return self._picture(compressed(rng, self.image), 1.0)
        image, ratio = self._reduced(rng)
        return self._picture(photographed(rng, image, self.finest * ratio), ratio)

    def _reduced(self, rng: Random) -> tuple[Pixels, float]:
        """The image at the size of a photo, with or without averaging, and the factor."""
        height, width = self.image.shape[:2]
        ratio = float(rng.uniform(*PHOTO_SIDES)) / max(height, width)
        if ratio >= 1:
            return self.image, 1.0
        size = max(1, round(width * ratio)), max(1, round(height * ratio))
        how = cv2.INTER_AREA if rng.random() < 0.5 else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(self.image, size, interpolation=how), dtype=np.uint8), ratio

    def _picture(self, image: Pixels, ratio: float) -> Picture:
        height, width = image.shape[:2]
        boxes = ratio * np.array(self.boxes, dtype=np.float32).reshape(-1, 4)
        limits = np.array([width, height, width, height], dtype=np.float32)
        ids = np.array(self.class_ids, dtype=np.int64)
        clipped = np.clip(boxes, 0, limits).astype(np.float32)
        return Picture(np.ascontiguousarray(image), clipped, ids)
