"""Draw two-coloured patterns that resemble symbols: fabrics, grids, stripes and others."""

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from model_export.samples.geometry import translation

Random = np.random.Generator
# (h, w) uint8: the share of the second of two colours in each pixel, 0 to 255.
Blend = NDArray[np.uint8]
Pattern = Callable[[Random, int, int], Blend]

# Share of the dot patterns that consist of rings.
RING_SHARE: Final = 0.3


def pattern(rng: Random, height: int, width: int) -> Blend:
    """Draw a random pattern, upright or rotated, smooth or grainy.

    Args:
        rng: Source of randomness.
        height: Pixels.
        width: Pixels.
    """
    blend = _turned(rng, PATTERNS[rng.integers(len(PATTERNS))], height, width)
    return _roughened(rng, blend) if rng.random() < 0.5 else blend


def _turned(rng: Random, draw: Pattern, height: int, width: int) -> Blend:
    """Draw a pattern at a random angle; in a third of the cases, upright."""
    if rng.random() < 0.33:
        return draw(rng, height, width)
    side = int(np.hypot(height, width)) + 1
    drawn = draw(rng, side, side)
    angle, scale = rng.uniform(0, 360), rng.uniform(1, 1.5)
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), angle, scale)
    shift = translation((width - side) / 2, (height - side) / 2)[:2]
    matrix = shift @ np.concatenate([matrix, [[0, 0, 1]]])
    return np.asarray(cv2.warpAffine(drawn, matrix, (width, height)), dtype=np.uint8)


def _roughened(rng: Random, blend: Blend) -> Blend:
    """Add grain, so that a pattern seems made of threads or fibres instead of paint."""
    grain = rng.integers(256, size=blend.shape, dtype=np.uint8)
    if rng.random() < 0.5:
        grain = np.asarray(cv2.blur(grain, (int(rng.integers(1, 6)), int(rng.integers(1, 6)))))
    share = rng.uniform(0.2, 0.7)
    return np.asarray(cv2.addWeighted(blend, 1 - share, grain, share, 0), dtype=np.uint8)


def _tiled(cell: Blend, height: int, width: int) -> Blend:
    down, across = -(-height // cell.shape[0]), -(-width // cell.shape[1])
    return np.ascontiguousarray(np.tile(cell, (down, across))[:height, :width])


def _stripes(rng: Random, height: int, width: int) -> Blend:
    """Stripes of one width; the bars of a symbol have several widths."""
    period = int(rng.integers(3, 30))
    cell = np.zeros((1, period), dtype=np.uint8)
    cell[:, : max(1, round(period * rng.uniform(0.2, 0.8)))] = 255
    return _tiled(cell, height, width)


def _checks(rng: Random, height: int, width: int) -> Blend:
    a, b = (int(side) for side in rng.integers(2, 24, size=2))
    cell = np.zeros((2 * a, 2 * b), dtype=np.uint8)
    cell[:a, :b] = cell[a:, b:] = 255
    return _tiled(cell, height, width)


def _dots(rng: Random, height: int, width: int) -> Blend:
    """Rows of holes, lamps or rings; some may be missing."""
    period = int(rng.integers(5, 20))
    cell = np.zeros((period, period), dtype=np.uint8)
    radius = max(1, int(period * rng.uniform(0.2, 0.5)))
    thick = max(1, radius // 2) if rng.random() < RING_SHARE else -1
    cv2.circle(cell, (period // 2, period // 2), radius, (255,), thick)
    dots = _tiled(cell, height, width)
    if rng.random() < 0.5:
        return dots
    there = rng.random((-(-height // period), -(-width // period))) < rng.uniform(0.3, 0.95)
    there = np.kron(there, np.ones((period, period), dtype=np.bool_))[:height, :width]
    return np.asarray(dots * there, dtype=np.uint8)


def _grid(rng: Random, height: int, width: int) -> Blend:
    period, thick = int(rng.integers(5, 40)), int(rng.integers(1, 4))
    cell = np.full((period, int(period * rng.uniform(0.6, 2)) + 1), 255, dtype=np.uint8)
    cell[:thick] = cell[:, :thick] = 0
    return _tiled(cell, height, width)


def _basket(rng: Random, height: int, width: int) -> Blend:
    """Squares of stripes, alternately vertical and horizontal."""
    period, count = int(rng.integers(3, 10)), int(rng.integers(2, 8))
    stripe = np.arange(period * count) % period < max(1, int(period * rng.uniform(0.3, 0.7)))
    upright = np.tile(stripe, (period * count, 1))
    cell = np.block([[upright, upright.T], [upright.T, upright]]).astype(np.uint8) * 255
    return _tiled(cell, height, width)


def _threads(rng: Random, height: int, width: int) -> Blend:
    """Columns of unevenly spaced threads, as in coarse fabrics and stacks of paper."""
    wide, period = int(rng.integers(20, 120)), rng.uniform(2.5, 9)
    drawn = np.empty((height, width), dtype=np.uint8)
    for left in range(0, width, wide):
        steps = rng.uniform(0.5, 1.5, size=int(2 * height / period) + 2) * period
        light = np.zeros(height + 1, dtype=np.int8)
        light[np.cumsum(steps).astype(int).clip(max=height)] = 1
        lines = np.cumsum(light[:height]) % 2 * rng.uniform(120, 255)
        drawn[:, left : left + wide] = lines[:, np.newaxis].astype(np.uint8)
    return drawn


def _dashes(rng: Random, height: int, width: int) -> Blend:
    """Rows of dashes of random length, as in carpets and woven straw."""
    rows, thick = int(rng.integers(2, 9)), int(rng.integers(3, 14))
    count = -(-height // rows)
    steps = rng.random((count, -(-width // thick) + 1)) < rng.uniform(0.3, 0.7)
    drawn = np.repeat(steps, thick, axis=1)[:, :width].astype(np.uint8) * 255
    shifts = rng.integers(thick, size=count)
    drawn = np.stack([np.roll(row, shift) for row, shift in zip(drawn, shifts, strict=True)])
    drawn = np.repeat(drawn, rows, axis=0)[:height]
    drawn[::rows] = drawn[::rows] // 2
    return np.ascontiguousarray(drawn)


def _noise(rng: Random, height: int, width: int) -> Blend:
    """Speckles of random height and width."""
    scale = np.exp(rng.uniform(0, np.log(12), size=2))
    shape = np.maximum(2, (np.array([height, width]) / scale).astype(int))
    coarse = rng.integers(0, 256, size=shape).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR))


def _spines(rng: Random, height: int, width: int) -> Blend:
    """Books or files on shelves: uneven heights, widths and greys."""
    drawn = np.full((height, width), int(rng.integers(0, 80)), dtype=np.uint8)
    shelf, widest = int(rng.integers(40, max(41, height))), int(rng.integers(5, 40))
    for bottom in range(shelf, height + shelf, shelf):
        x = 0
        while x < width:
            wide = int(rng.integers(2, widest))
            top = bottom - int(shelf * rng.uniform(0.55, 0.95))
            cv2.rectangle(drawn, (x, top), (x + wide, bottom - 4), int(rng.integers(256)), -1)
            x += wide + int(rng.integers(1, 4))
    return drawn


def _keys(rng: Random, height: int, width: int) -> Blend:
    """Keyboards and other rows of buttons with letters."""
    period = int(rng.integers(12, 50))
    drawn = np.full((height, width), 255, dtype=np.uint8)
    for y in range(0, height, period):
        x = -int(rng.integers(period))
        while x < width:
            wide = period if rng.random() < 0.85 else 2 * period
            cv2.rectangle(drawn, (x + 2, y + 2), (x + wide - 2, y + period - 2), (60,), -1)
            letter = chr(int(rng.integers(ord("A"), ord("Z") + 1)))
            origin, size = (x + period // 4, y + 2 * period // 3), period / 50
            cv2.putText(drawn, letter, origin, cv2.FONT_HERSHEY_SIMPLEX, size, (220,))
            x += wide
    return drawn


def _weave(rng: Random, height: int, width: int) -> Blend:
    """Straw and wicker: bands of short vertical strands, held together by smooth strands."""
    drawn = np.full((height, width), int(rng.integers(120, 256)), dtype=np.uint8)
    wide, tall = int(rng.integers(30, 140)), int(rng.integers(8, 36))
    period, bare = rng.uniform(2.5, 8), rng.uniform(0, 0.6)
    for left in range(0, width, wide):
        top = -int(rng.integers(tall))
        while top < height:
            band = drawn[max(top, 0) : top + int(tall * (1 - bare)), left : left + wide]
            steps = np.cumsum(rng.uniform(0.6, 1.4, size=int(2 * wide / period) + 2) * period)
            light = np.searchsorted(steps, np.arange(band.shape[1])) % 2
            band[:] = np.where(light, rng.integers(150, 256), rng.integers(0, 120))
            top += tall
    return drawn


def _carpet(rng: Random, height: int, width: int) -> Blend:
    """Carpet tiles of fine, uneven lines, each a quarter turn from its neighbours."""
    side, period = int(rng.integers(40, 200)), rng.uniform(2, 7)
    drawn = np.empty((height, width), dtype=np.uint8)
    across = np.arange(side)
    for row, top in enumerate(range(0, height, side)):
        for column, left in enumerate(range(0, width, side)):
            phase = np.cumsum(rng.uniform(0.7, 1.3, size=side)) * 2 * np.pi / period
            lines = 128 + rng.uniform(30, 120) * np.sin(phase)
            tile = np.tile(lines, (side, 1)) + rng.normal(scale=20, size=(side, 1))
            tile = tile if (row + column) % 2 else tile.T
            part = drawn[top : top + side, left : left + side]
            part[:] = np.clip(tile, 0, 255)[across[: part.shape[0]]][:, : part.shape[1]]
    return drawn


def _loops(rng: Random, height: int, width: int) -> Blend:
    """Looped carpets: columns of bands, some of strands, some of ridges across the strands."""
    wide, period = int(rng.integers(25, 160)), rng.uniform(3, 9)
    wander = np.cumsum(rng.normal(scale=0.03 * period, size=width))
    strands = 0.5 + 0.5 * np.sin((np.arange(width) + wander) * 2 * np.pi / period)
    strands = strands ** rng.uniform(0.5, 2)
    # Each strand has its own brightness.
    turn = (np.arange(width) / period).astype(int)
    strands = strands * rng.uniform(0.6, 1, size=turn[-1] + 1)[turn]
    tallest, softness = int(rng.integers(10, 60)), int(rng.integers(1, 6))
    # For each pixel: the brightness of its band, and how visible the strands are in it.
    bright = np.empty((height, width), dtype=np.float32)
    shown = np.empty((height, width), dtype=np.float32)
    for left in range(0, width, wide):
        top = 0
        while top < height:
            tall, ridge = int(rng.integers(4, tallest)), rng.random() < 0.5
            tall = max(3, tall // 3) if ridge else tall
            part = slice(top, top + tall), slice(left, left + wide)
            bright[part] = rng.uniform(120, 230) if ridge else rng.uniform(40, 130)
            shown[part] = rng.uniform(0, 0.6) if ridge else rng.uniform(0.5, 1)
            top += tall
    ground, visible = (cv2.blur(each, (1, softness)) for each in (bright, shown))
    return np.asarray(ground + visible * strands * (235 - ground), dtype=np.uint8)


def _files(rng: Random, height: int, width: int) -> Blend:
    """Sleeves and papers in a rack, each leaning at a slightly different angle."""
    drawn = np.full((height, width), int(rng.integers(0, 60)), dtype=np.uint8)
    rack = int(rng.integers(40, max(41, height)))
    for bottom in range(rack, height + rack, rack):
        x, lean = 0.0, rng.uniform(-0.2, 0.2)
        while x < width:
            tall, thick = rack * rng.uniform(0.5, 0.95), int(rng.integers(1, 7))
            lean = float(np.clip(lean + rng.normal(scale=0.04), -0.35, 0.35))
            head = int(x + lean * tall), int(bottom - tall)
            cv2.line(drawn, (int(x), bottom - 3), head, int(rng.integers(60, 256)), thick)
            x += thick + rng.uniform(0, 5)
    return drawn


PATTERNS: Final[tuple[Pattern, ...]] = (
    *(_stripes, _checks, _dots, _dots, _grid, _basket, _threads, _threads, _dashes, _dashes),
    *(_noise, _noise, _spines, _spines, _keys),
    *(_weave, _weave, _weave, _carpet, _carpet, _loops, _loops, _loops, _files, _files, _files),
)
