"""Parsers of argument texts; argparse shows their errors."""

import argparse
import re
from pathlib import Path

from model_export.samples.batch_plan import SIZE_STEP
from model_export.training.config import DrawnBarcodes
from service.core.contract import MAX_SIGMA, MIN_SIGMA


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def natural(text: str) -> int:
    """A whole number from 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def fraction(text: str) -> float:
    """A number within 0 and 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 and 1")
    return number


def gaussian_width(text: str) -> float:
    """A sigma that the service accepts."""
    number = float(text)
    if not MIN_SIGMA <= number <= MAX_SIGMA:
        raise argparse.ArgumentTypeError(f"{text} is not within {MIN_SIGMA:g} and {MAX_SIGMA:g}")
    return number


def absolute(text: str) -> Path:
    """An absolute path, valid from any working directory."""
    return Path(text).absolute()


def training_data(text: str) -> Path | DrawnBarcodes:
    """An absolute path, or `barcodes:N` for N drawn pictures per epoch."""
    drawn = re.fullmatch(r"barcodes:([1-9]\d*)", text)
    return DrawnBarcodes(int(drawn[1])) if drawn else absolute(text)


def size(text: str) -> tuple[int, int]:
    """(height, width) from `416` or `320x416`."""
    try:
        sides = [int(side) for side in text.lower().split("x")]
        height, width = sides * 2 if len(sides) == 1 else sides
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is not N or HxW, such as 320x416") from error
    return height, width


def strides(text: str) -> tuple[int, ...]:
    """Ascending strides from `8,16,32,64`."""
    try:
        steps = tuple(int(step) for step in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is not a list such as 8,16,32") from error
    if steps[0] < 1 or list(steps) != sorted(set(steps)):
        raise argparse.ArgumentTypeError(f"{text} must ascend from 1 or more, such as 8,16,32")
    return steps


def training_size(text: str) -> tuple[int, int]:
    """A size whose sides are positive multiples of 32."""
    height, width = size(text)
    if min(height, width) < 1 or height % SIZE_STEP or width % SIZE_STEP:
        raise argparse.ArgumentTypeError(f"{text} has sides that are not multiples of {SIZE_STEP}")
    return height, width
