"""Drawn objects of COCO's classes that YOLOX models find, with their true boxes.

The pictures need no licence, and the models' answers to them tell how a model takes its pixels:
YOLOX-nano finds nine objects with a sum of scores of 5.9, with red and blue swapped of 4.5.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Pixels = NDArray[np.uint8]
Color = tuple[int, int, int]
Box = tuple[float, float, float, float]

# Side in pixels of the square that each object is drawn in.
TILE: Final = 208
MIDDLE: Final = TILE // 2
WHITE: Final = (245, 245, 245)
BLACK: Final = (25, 25, 25)
# A slight blur makes edges look like a camera's.
BLUR: Final = 0.8


@dataclass(frozen=True, slots=True)
class DrawnObject:
    """An object in a square of `TILE` pixels.

    Attributes:
        names: The names that its class has in public lists.
        box_xyxy: Its box in pixels of the square.
        background: Colour behind it, RGB.
        draw: Draws it.
    """

    names: tuple[str, ...]
    box_xyxy: Box
    background: Color
    draw: Callable[[ImageDraw.ImageDraw], None]

    def picture(self) -> Pixels:
        """(TILE, TILE, 3) uint8, BGR."""
        image = Image.new("RGB", (TILE, TILE), self.background)
        self.draw(ImageDraw.Draw(image))
        blurred = image.filter(ImageFilter.GaussianBlur(BLUR))
        return np.ascontiguousarray(np.asarray(blurred)[:, :, ::-1])


def _stop_sign(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((99, 140, 109, TILE), fill=(140, 140, 145))
    for radius, color in ((70, WHITE), (64, (190, 20, 35))):
        angles = [math.pi / 8 + side * math.pi / 4 for side in range(8)]
        corners = [(MIDDLE + radius * math.cos(a), 80 + radius * math.sin(a)) for a in angles]
        draw.polygon(corners, fill=color)
    font = ImageFont.load_default(46)
    draw.text((MIDDLE, 80), "STOP", fill=WHITE, font=font, anchor="mm", stroke_width=1)


def _clock(draw: ImageDraw.ImageDraw) -> None:
    for radius, color in ((70, BLACK), (63, WHITE)):
        draw.ellipse(_square(MIDDLE, MIDDLE, radius), fill=color)
    marks = [(hour * 30, 50, 58, 4) for hour in range(12)]
    for degrees, inner, outer, width in [*marks, (305, 0, 30, 6), (60, 0, 45, 4)]:
        sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        ends = [(MIDDLE + far * sine, MIDDLE - far * cosine) for far in (inner, outer)]
        draw.line(ends, fill=BLACK, width=width)


def _orange(draw: ImageDraw.ImageDraw) -> None:
    _ball(draw, (255, 150, 20))


def _apple(draw: ImageDraw.ImageDraw) -> None:
    _ball(draw, (215, 30, 35))
    draw.line((104, 60, 112, 35), fill=(90, 60, 30), width=5)
    draw.ellipse((110, 34, 140, 50), fill=(60, 140, 40))


def _ball(draw: ImageDraw.ImageDraw, color: Color) -> None:
    """A ball lit from the top left."""
    for radius in range(60, 0, -1):
        light = 0.55 + 0.45 * (1 - radius / 60)
        aside = (60 - radius) * 0.3
        shade = (int(color[0] * light), int(color[1] * light), int(color[2] * light))
        draw.ellipse(_square(MIDDLE - aside, 110 - aside, radius), fill=shade)


def _traffic_light(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((98, 160, 110, TILE), fill=(70, 70, 70))
    draw.rounded_rectangle((74, 20, 134, 164), 8, fill=(30, 30, 30))
    for place, lamp in enumerate(((235, 40, 30), (70, 60, 20), (20, 60, 30))):
        draw.ellipse(_square(104, 46 + place * 45, 18), fill=lamp)


def _screen(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((24, 40, 184, 140), fill=(20, 20, 22))
    draw.rectangle((30, 46, 178, 134), fill=(40, 70, 120))
    draw.rectangle((90, 140, 118, 160), fill=(30, 30, 30))
    draw.rectangle((66, 160, 142, 166), fill=(30, 30, 30))


def _umbrella(draw: ImageDraw.ImageDraw) -> None:
    draw.pieslice((24, 40, 184, 190), 180, 360, fill=(210, 40, 60))
    draw.line((104, 110, 104, 185), fill=(70, 50, 40), width=5)
    draw.arc((88, 170, 106, 196), 0, 180, fill=(70, 50, 40), width=5)
    for rib in (64, 104, 144):
        draw.line((104, 40, rib, 115), fill=(150, 20, 40), width=2)


def _kite(draw: ImageDraw.ImageDraw) -> None:
    draw.polygon([(104, 20), (150, 80), (104, 150), (58, 80)], fill=(220, 40, 40))
    draw.polygon([(104, 20), (150, 80), (104, 80)], fill=(250, 210, 50))
    draw.line((104, 150, 130, 205), fill=(250, 250, 250), width=2)


def _frisbee(draw: ImageDraw.ImageDraw) -> None:
    draw.ellipse((50, 80, 158, 130), fill=(220, 60, 40))
    draw.ellipse((70, 86, 138, 118), fill=(235, 90, 60))


def _square(x: float, y: float, radius: float) -> Box:
    return (x - radius, y - radius, x + radius, y + radius)


OBJECTS: Final = (
    DrawnObject(("stop sign",), (34, 10, 174, 150), (150, 190, 230), _stop_sign),
    DrawnObject(("orange",), (44, 50, 164, 170), (230, 225, 215), _orange),
    DrawnObject(("apple",), (44, 35, 164, 170), (235, 230, 220), _apple),
    DrawnObject(("traffic light",), (74, 20, 134, 164), (170, 200, 235), _traffic_light),
    DrawnObject(("clock",), (34, 34, 174, 174), (190, 170, 140), _clock),
    DrawnObject(("tv", "tvmonitor"), (24, 40, 184, 166), (200, 190, 175), _screen),
    DrawnObject(("umbrella",), (24, 40, 184, 196), (180, 205, 230), _umbrella),
    DrawnObject(("kite",), (58, 20, 150, 150), (120, 170, 235), _kite),
    DrawnObject(("frisbee",), (50, 80, 158, 130), (90, 150, 70), _frisbee),
)
