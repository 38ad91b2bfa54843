"""Draws `street.jpg`, a picture that needs no licence: `python examples/draw_street.py`."""

import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

WIDTH, HEIGHT, HORIZON = 640, 480, 300
WHITE, RED, DARK = (245, 245, 245), (190, 20, 35), (25, 25, 25)


def main() -> None:
    """Draw a road with a stop sign and a clock tower."""
    picture = Image.new("RGB", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(picture)
    for y in range(HEIGHT):
        shade = y / HEIGHT
        sky = (int(120 + 80 * shade), int(170 + 60 * shade), int(235 - 10 * shade))
        grass = (int(95 + 30 * shade), int(125 - 20 * shade), 70)
        draw.line((0, y, WIDTH, y), fill=sky if y < HORIZON else grass)
    draw.polygon([(260, 300), (380, 300), (640, 480), (0, 480)], fill=(90, 90, 95))
    draw.polygon([(317, 300), (323, 300), (345, 480), (295, 480)], fill=(220, 220, 220))
    draw_stop_sign(draw, 458, 160)
    draw_clock_tower(draw, 150, 140)
    picture = picture.filter(ImageFilter.GaussianBlur(0.8))
    picture.save(Path(__file__).with_name("street.jpg"), quality=88)


def draw_stop_sign(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """A white octagon, a red one on it, the word, and a pole."""
    draw.rectangle((x - 6, y + 70, x + 6, 470), fill=(140, 140, 145))
    for radius, color in ((95, WHITE), (88, RED)):
        angles = [math.pi / 8 + side * math.pi / 4 for side in range(8)]
        corners = [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]
        draw.polygon(corners, fill=color)
    font = ImageFont.load_default(62)
    draw.text((x, y), "STOP", fill=WHITE, font=font, anchor="mm", stroke_width=2)


def draw_clock_tower(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """A tower with a clock that says ten past ten."""
    draw.rectangle((x - 80, 60, x + 80, 420), fill=(170, 120, 90))
    draw.polygon([(x - 90, 60), (x + 90, 60), (x, 5)], fill=(110, 60, 50))
    for radius, color in ((58, DARK), (52, WHITE)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    marks = [(hour * 30, 42, 49, 4) for hour in range(12)]
    for degrees, inner, outer, width in [*marks, (305, 0, 26, 6), (60, 0, 39, 4)]:
        sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        ends = (x + inner * sine, y - inner * cosine, x + outer * sine, y - outer * cosine)
        draw.line(ends, fill=DARK, width=width)


if __name__ == "__main__":
    main()
