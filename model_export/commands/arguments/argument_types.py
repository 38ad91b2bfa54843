"""Types of arguments, and the parsers of their texts."""

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args

from cyclopts import Parameter, Token

from model_export.errors import UsageError
from model_export.model.variants import Variant, plain_variant
from model_export.samples.batch_plan import SIZE_STEP
from model_export.training.config import DrawnBarcodes
from service.core.contract import MAX_SIGMA, MIN_SIGMA

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# A sample of this side takes 200 MB, and its network's activations far more.
MAX_SIDE: Final = 8192
# A flag that is only ever given, without a `--no-` form.
SWITCH: Final = Parameter(negative=(), show_default=False)


class WrongValueError(argparse.ArgumentTypeError, ValueError):
    """A text is not what an argument takes; argparse, which benchmarks use, shows the message."""


def positive(text: str) -> int:
    """A whole number above 0."""
    number = whole(text)
    if number < 1:
        raise WrongValueError(f"{text} is not positive")
    return number


def natural(text: str) -> int:
    """A whole number from 0."""
    number = whole(text)
    if number < 0:
        raise WrongValueError(f"{text} is negative")
    return number


def fraction(text: str) -> float:
    """A number within 0 and 1."""
    number = real(text)
    if not 0 <= number <= 1:
        raise WrongValueError(f"{text} is not within 0 and 1")
    return number


def gaussian_width(text: str) -> float:
    """A sigma that the service accepts."""
    number = real(text)
    if not MIN_SIGMA <= number <= MAX_SIGMA:
        raise WrongValueError(f"{text} is not within {MIN_SIGMA:g} and {MAX_SIGMA:g}")
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
        raise WrongValueError(f"{text} is not N or HxW, such as 320x416") from error
    return height, width


def size_changes(text: str) -> int | tuple[int, int]:
    """5 from `5`, (down, up) from `3,7`."""
    if "," not in text:
        return natural(text)
    try:
        down, up = map(natural, text.split(","))
    except ValueError as error:
        raise WrongValueError(f"{text} is not N or DOWN,UP, such as 3,7") from error
    return down, up


def strides(text: str) -> tuple[int, ...]:
    """Ascending strides from `8,16,32,64`."""
    try:
        steps = tuple(int(step) for step in text.split(","))
    except ValueError as error:
        raise WrongValueError(f"{text} is not a list such as 8,16,32") from error
    if steps[0] < 1 or list(steps) != sorted(set(steps)):
        raise WrongValueError(f"{text} must ascend from 1 or more, such as 8,16,32")
    return steps


def training_size(text: str) -> tuple[int, int]:
    """A size whose sides are positive multiples of 32."""
    height, width = size(text)
    if min(height, width) < 1 or height % SIZE_STEP or width % SIZE_STEP:
        raise WrongValueError(f"{text} has sides that are not multiples of {SIZE_STEP}")
    if max(height, width) > MAX_SIDE:
        raise WrongValueError(f"{text} has a side above {MAX_SIDE}, the largest that is read")
    return height, width


def parsed_by(
    parser: Callable[[str], object], metavar: str, separator: str | None = None
) -> Parameter:
    """An argument of one word that the parser turns into its value.

    Args:
        parser: Makes the value of the word.
        metavar: Stands for the word in the help.
        separator: Makes one word of a list in a TOML file, which is refused without it.
    """

    def convert(_: object, tokens: Sequence[Token]) -> object:
        words = [token.value for token in tokens]
        if len(words) == 1 or tokens[-1].source == "cli":
            # The last counts of a flag that is given more than once.
            return parser(words[-1])
        if separator is None:
            raise WrongValueError(f"[{', '.join(words)}] is a list; write one value")
        return parser(separator.join(words))

    return Parameter(converter=convert, metavar=metavar, n_tokens=1)


def each_parsed_by(parser: Callable[[str], object], metavar: str) -> Parameter:
    """An argument of one or more words."""

    def convert(_: object, tokens: Sequence[Token]) -> tuple[object, ...]:
        return tuple(parser(token.value) for token in tokens)

    return Parameter(converter=convert, metavar=metavar, consume_multiple=(1, 10**6))


def one_of(networks: object) -> Parameter:
    """A network's name, also as `yolox-nano` and `YOLOX_nano`.

    Args:
        networks: The Literal of the names.
    """
    names = get_args(networks)

    def parse(text: str) -> str:
        name = plain_variant(text)
        if name not in names:
            raise WrongValueError(f"{text} is none of {', '.join(names)}")
        return name

    return parsed_by(parse, "NAME")


def check_exactly_one(options: "DataclassInstance") -> None:
    """Refuse none and several of the options.

    Raises:
        UsageError: Not exactly one is given.
    """
    if len(given_options(options)) != 1:
        names = ", ".join(f"--{field.name}" for field in fields(options))
        raise UsageError(f"give exactly one of {names}")


def given_options(options: "DataclassInstance") -> dict[str, Any]:
    """Those that are given, by name; the others are None."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: value for name, value in values.items() if value is not None}


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError as error:
        raise WrongValueError(f"{text} is not a whole number") from error


def real(text: str) -> float:
    """A number."""
    try:
        return float(text)
    except ValueError as error:
        raise WrongValueError(f"{text} is not a number") from error


Positive = Annotated[int, parsed_by(positive, "N")]
Natural = Annotated[int, parsed_by(natural, "N")]
Fraction = Annotated[float, parsed_by(fraction, "P")]
Sigma = Annotated[float, parsed_by(gaussian_width, "S")]
AbsolutePath = Annotated[Path, parsed_by(absolute, "PATH")]
Size = Annotated[tuple[int, int], parsed_by(size, "N|HxW", "x")]
TrainingSize = Annotated[tuple[int, int], parsed_by(training_size, "N|HxW", "x")]
SizeChanges = Annotated[int | tuple[int, int], parsed_by(size_changes, "N|N,N", ",")]
Strides = Annotated[tuple[int, ...], parsed_by(strides, "N,N,..", ",")]
Network = Annotated[Variant, one_of(Variant)]
