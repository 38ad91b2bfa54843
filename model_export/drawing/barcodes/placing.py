"""Place flat prints in a picture: rotated, tilted in perspective, or bent around a bottle.

Coordinates are continuous, as everywhere in training: the pixel in column i and row j covers
[i, i + 1) x [j, j + 1).
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from model_export.drawing.barcodes.patterns import Blend
from model_export.drawing.barcodes.surfaces import Pixels
from model_export.samples.geometry import CORNER_BITS, Matrix, scaling, translation

Random = np.random.Generator
# (P, 2) float64: x, y.
Points = NDArray[np.float64]

# Range of `Placement.bend`: how far a print reaches round a bottle to either side, radians.
BEND: Final = (0.4, 1.15)
BEND_SHARE: Final = 0.13
# Maximum tilt about either axis, radians; distance of the camera over the print's longer side.
TILT: Final = 0.75
DISTANCE: Final = (1.2, 4.0)
UPRIGHT_SHARE: Final = 0.4
QUARTER_TURN_SHARE: Final = 0.15
LEAN: Final = 0.14
POINTS_PER_EDGE: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """A map from the pixels of a print to the pixels of a picture.

    Attributes:
        width: Width of the print, pixels.
        height: Height of the print, pixels.
        matrix: (3, 3) float64, homography from the bent print to the picture.
        bend: Half of the angle that the print spans on a cylinder, radians; 0 for a flat print.
        sag: How far the middle of a bent print hangs below its ends, over its height.
    """

    width: int
    height: int
    matrix: Matrix
    bend: float = 0.0
    sag: float = 0.0

    def to_picture(self, points: Points) -> Points:
        """Map (P, 2) points of the print to (P, 2) points of the picture."""
        homogeneous = np.column_stack([self._bent(points), np.ones(len(points))]) @ self.matrix.T
        return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:])

    def outline(self, xyxy: NDArray[np.float32]) -> Points:
        """Map a rectangle of the print to a polygon in the picture."""
        x1, y1, x2, y2 = (float(value) for value in xyxy)
        corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]])
        steps = np.arange(4 * POINTS_PER_EDGE) / POINTS_PER_EDGE
        ends = np.arange(5)
        edge = [np.interp(steps, ends, corners[:, axis]) for axis in range(2)]
        return self.to_picture(np.column_stack(edge))

    def whole(self) -> Points:
        """The polygon of the whole print in the picture."""
        return self.outline(np.array([0, 0, self.width, self.height], dtype=np.float32))

    def paint(self, canvas: Pixels, image: Pixels) -> None:
        """Draw the print on the canvas; pixels outside its outline stay as they are."""
        outline = self.whole()
        mask = np.zeros(canvas.shape[:2], dtype=np.uint8)
        # In OpenCV, the centre of the first pixel is at 0, not at 0.5.
        polygon = np.rint((outline - 0.5) * (1 << CORNER_BITS)).astype(np.int32)
        cv2.fillPoly(mask, [polygon], (255,), cv2.LINE_8, CORNER_BITS)
        left, top, wide, tall = cv2.boundingRect(mask)
        if wide and tall:
            part = canvas[top : top + tall, left : left + wide]
            warped = self._warp(image, left, top, wide, tall, cv2.BORDER_REPLICATE)
            cv2.copyTo(warped, mask[top : top + tall, left : left + wide], part)

    def paint_ink(self, canvas: Pixels, ink: Blend, color: NDArray[np.float32]) -> None:
        """Print an ink mask in a colour on the canvas."""
        height, width = canvas.shape[:2]
        weight = self._warp(ink, 0, 0, width, height, cv2.BORDER_CONSTANT)
        share = weight[:, :, np.newaxis] * np.float32(1 / 255)
        canvas[:] = canvas + share * (color - canvas)

    def _warp(
        self, image: NDArray[np.uint8], left: int, top: int, width: int, height: int, border: int
    ) -> NDArray[np.uint8]:
        """The warped print, cropped to the part of the picture with this corner and size."""
        bent = self._bend_image(image) if self.bend else image
        local = translation(-left - 0.5, -top - 0.5) @ self.matrix @ translation(0.5, 0.5)
        warped = cv2.warpPerspective(bent, local, (width, height), borderMode=border)
        return np.asarray(warped, dtype=np.uint8)

    def _bent(self, points: Points) -> Points:
        if not self.bend:
            return points
        angle = (2 * points[:, 0] / self.width - 1) * self.bend
        x = self.width / 2 * (1 + np.sin(angle) / np.sin(self.bend))
        return np.column_stack([x, points[:, 1] + self._hang(angle)])

    def _bend_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        x = (np.arange(self.width) + 0.5) * 2 / self.width - 1
        angle = np.arcsin(x * np.sin(self.bend))
        columns = self.width / 2 * (1 + angle / self.bend) - 0.5
        rows = np.arange(self.height)[:, np.newaxis] - self._hang(angle)
        columns = np.broadcast_to(columns, rows.shape).astype(np.float32)
        bent = cv2.remap(
            image,
            columns,
            rows.astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE if image.ndim == 3 else cv2.BORDER_CONSTANT,
        )
        return np.asarray(bent, dtype=np.uint8)

    def _hang(self, angle: NDArray[np.float64]) -> NDArray[np.float64]:
        """Vertical shift at each angle, pixels, positive downwards: opposite at middle and ends."""
        depth = (np.cos(angle) - np.cos(self.bend)) / (1 - np.cos(self.bend))
        return np.asarray(self.sag * self.height * (depth - 0.5))


def place(rng: Random, shape: tuple[int, int], center: tuple[float, float]) -> Placement:
    """Place a print at random angles, at about its own size.

    Args:
        rng: Source of randomness.
        shape: Height and width of the print, pixels.
        center: x, y in the picture of the print's centre, pixels.
    """
    height, width = shape
    seen = _perspective(rng, height, width) if rng.random() < 0.6 else np.eye(3)
    angle = _angle(rng)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    matrix = translation(*center) @ turn @ seen @ translation(-width / 2, -height / 2)
    if rng.random() < BEND_SHARE:
        return Placement(width, height, matrix, rng.uniform(*BEND), rng.uniform(-0.2, 0.2))
    return Placement(width, height, matrix)


def _angle(rng: Random) -> float:
    choice = rng.random()
    if choice > UPRIGHT_SHARE + QUARTER_TURN_SHARE:
        return float(rng.uniform(-np.pi, np.pi))
    turns = rng.integers(4) if choice > UPRIGHT_SHARE else 0
    return float(rng.uniform(-LEAN, LEAN) + turns * np.pi / 2)


def _perspective(rng: Random, height: int, width: int) -> Matrix:
    """The homography from a print, centred at the origin, to a camera's view of it when tilted."""
    about_x, about_y = rng.uniform(-TILT, TILT, size=2)
    distance = max(height, width) * rng.uniform(*DISTANCE)
    # The directions in space of a step to the right and of a step down on the print.
    right = np.array([np.cos(about_y), 0.0, -np.sin(about_y)])
    down = np.array([np.sin(about_x) * np.sin(about_y), np.cos(about_x), np.sin(about_x)])
    space = np.column_stack([right, down, np.zeros(3)])
    matrix = np.array(space)
    matrix[2] = space[2] / distance
    matrix[2, 2] = 1
    return matrix @ scaling(1.0)
