"""Draw pictures with barcodes that need no licence: `python examples/draw_barcodes.py`.

`parcel.jpg`, `shelf.jpg` and `ticket.jpg`; zxing-cpp (the extra `barcodes`) draws the symbols.
"""

from pathlib import Path

import numpy as np
import zxingcpp
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from zxingcpp import BarcodeFormat

WIDTH, HEIGHT = 800, 600
PAPER, INK, GREY = (250, 249, 245), (25, 25, 30), (120, 120, 125)
Corners = list[tuple[int, int]]


def main() -> None:
    """Draw the three pictures."""
    for name, draw in {"parcel": parcel, "shelf": shelf, "ticket": ticket}.items():
        picture = draw().filter(ImageFilter.GaussianBlur(0.7))
        picture.save(Path(__file__).with_name(f"{name}.jpg"), quality=85)


def parcel() -> Image.Image:
    """A shipping label on a box with a strip of tape: Code 128, QR code, PDF417."""
    label = Image.new("RGB", (520, 440), PAPER)
    draw = ImageDraw.Draw(label)
    draw.rectangle((8, 8, 511, 431), outline=INK, width=3)
    write(draw, (24, 24), "EXPRESS  12", 40)
    write(draw, (24, 84), "Lighthouse Books\n7 Harbour Lane\n04710 Northport", 22)
    draw.line((8, 176, 511, 176), fill=INK, width=3)
    paste(label, (370, 22), BarcodeFormat.QRCode, "https://example.org/t/JX-48213-PT", 4)
    paste(label, (60, 190), BarcodeFormat.Code128, "JX4821300917PT", 2)
    write(draw, (160, 298), "JX 4821 3009 17 PT", 22)
    draw.line((8, 330, 511, 330), fill=INK, width=3)
    paste(label, (40, 342), BarcodeFormat.PDF417, "JX4821300917PT|2.4kg|NORTHPORT", 2)
    picture = grainy((170, 128, 84), 5)
    ImageDraw.Draw(picture).polygon([(0, 40), (800, 10), (800, 80), (0, 110)], fill=(205, 180, 140))
    return lay(picture, label, [(130, 120), (655, 75), (690, 520), (150, 555)])


def shelf() -> Image.Image:
    """Three price tags on the edge of a shelf, each with an EAN-13 and a Data Matrix."""
    picture = grainy((205, 208, 212), 4)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 200, WIDTH, 465), fill=(165, 170, 176))
    for column, color in enumerate([(176, 60, 50), (60, 110, 160), (70, 130, 80), (200, 160, 60)]):
        draw.rectangle((20 + 200 * column, 30, 175 + 200 * column, 199), fill=color)
    goods = [("Oat biscuits", "2.49", "401234500012"), ("Black tea", "3.95", "509876500034")]
    goods.append(("Plum jam", "4.20", "301112200056"))
    for column, (name, price, number) in enumerate(goods):
        tag = Image.new("RGB", (240, 225), PAPER)
        writer = ImageDraw.Draw(tag)
        write(writer, (12, 8), name, 22)
        write(writer, (12, 38), price, 48)
        paste(tag, (164, 26), BarcodeFormat.DataMatrix, number, 4)
        paste(tag, (7, 110), BarcodeFormat.EAN13, number, 2)
        x, y = 17 + 262 * column, 220
        picture = lay(
            picture, tag, [(x, y), (x + 240, y + 4), (x + 238, y + 229), (x - 2, y + 225)]
        )
    return picture


def ticket() -> Image.Image:
    """A ticket with an Aztec code that lies aslant on a printed page with a QR code."""
    picture = grainy((236, 234, 228), 3)
    draw = ImageDraw.Draw(picture)
    line = "The train calls at every station on the coast, in fair weather and in fog. "
    for row in range(18):
        write(draw, (40, 30 + 31 * row), (line * 2)[7 * row % 60 :][:58], 20, GREY)
    draw.rectangle((600, 0, WIDTH, 190), fill=(236, 234, 228))
    paste(picture, (615, 20), BarcodeFormat.QRCode, "https://example.org/timetable", 5)
    card = Image.new("RGB", (460, 220), (238, 222, 190))
    writer = ImageDraw.Draw(card)
    write(writer, (20, 20), "COAST LINE", 36)
    write(writer, (20, 80), "Northport - Cape Lantern\nCoach 4  Seat 31\n14:05", 22)
    paste(card, (290, 45), BarcodeFormat.Aztec, "COAST 4-31 1405 NPT-CLN 48213", 5)
    return lay(picture, card, [(120, 330), (560, 210), (625, 420), (185, 545)])


def grainy(color: tuple[int, int, int], spread: float) -> Image.Image:
    """A plain picture with some noise."""
    noise = np.random.default_rng(0).normal(0, spread, (HEIGHT, WIDTH, 1))
    return Image.fromarray(np.clip(np.array(color) + noise, 0, 255).astype(np.uint8))


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    size: int,
    color: tuple[int, int, int] = INK,
) -> None:
    """Text with its top left corner there."""
    draw.multiline_text(at, text, fill=color, font=ImageFont.load_default(size))


def paste(
    picture: Image.Image, at: tuple[int, int], kind: BarcodeFormat, text: str, scale: int
) -> None:
    """A symbol and its quiet zone, with their top left corner there."""
    symbol = zxingcpp.create_barcode(text, kind).to_image(scale=scale)
    picture.paste(Image.fromarray(np.asarray(symbol)).convert("RGB"), at)


def lay(picture: Image.Image, sheet: Image.Image, corners: Corners) -> Image.Image:
    """A picture with a sheet on it, whose corners lie there: clockwise from its top left."""
    (width, height), equations = sheet.size, []
    edges = [(0, 0), (width, 0), (width, height), (0, height)]
    for (x, y), (u, v) in zip(corners, edges, strict=True):
        equations += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    plane = np.linalg.solve(np.array(equations, float), np.array(edges, float).ravel())
    bent = Image.Transform.PERSPECTIVE
    smooth = Image.Resampling.BICUBIC
    laid = sheet.transform(picture.size, bent, plane.tolist(), smooth)
    mask = Image.new("L", sheet.size, 255).transform(picture.size, bent, plane.tolist(), smooth)
    shadow = Image.new("RGB", picture.size)
    dark = mask.filter(ImageFilter.GaussianBlur(6)).point(lambda value: value // 3)
    return Image.composite(laid, Image.composite(shadow, picture, dark), mask)


if __name__ == "__main__":
    main()
