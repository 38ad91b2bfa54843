"""The contract inside an ONNX file: its input, its output, and how to read the output."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal, Self

BoxCoding = Literal["yolox", "anchor_point"]
ScoreActivation = Literal["logits", "probabilities"]
ScoreBy = Literal["objectness", "joint"]
NmsMethod = Literal["soft-mean", "soft-gaussian", "soft-linear", "hard", "none"]
Layout = Literal["NHWC", "NCHW"]
InputDtype = Literal["uint8", "float16", "float32"]
ColorOrder = Literal["BGR", "RGB"]

CONTRACT_VERSION: Final = 1
METADATA_KEY: Final = "yolox_contract"
# Beyond these, every decay rounds to 0 or 1, and float32 over- or underflows.
MIN_SIGMA: Final = 1e-6
MAX_SIGMA: Final = 1e6


class ContractError(ValueError):
    """A contract is missing, of an unknown version, malformed, or contradicts itself."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The image tensor a model expects.

    Attributes:
        name: Name of the graph input.
        height: Network height in pixels; with `dynamic_size`, the default height.
        width: Network width in pixels; with `dynamic_size`, the default width.
        dynamic_size: Whether the graph takes every height and width that are multiples of the
            largest stride.
        least_side: With `dynamic_size`, the minimum height and width in pixels at which the model
            detects well, or None for the largest stride.
        batch: The only batch size the graph takes, or None for any.
        layout: Order of the axes.
        dtype: Element type.
        color_order: Order of the channels.
        value_range: Input values that stand for pixel values 0 and 255.
        pad_value: Pixel value (0-255) of the letterbox border.
    """

    name: str
    height: int
    width: int
    dynamic_size: bool = False
    least_side: int | None = None
    batch: int | None = None
    layout: Layout = "NHWC"
    dtype: InputDtype = "uint8"
    color_order: ColorOrder = "BGR"
    value_range: tuple[float, float] = (0.0, 255.0)
    pad_value: int = 114


@dataclass(frozen=True, slots=True)
class Recommended:
    """Thresholds that this model works best with; None keeps the service's default."""

    confidence: float | None = None
    score_by: ScoreBy | None = None
    nms: NmsMethod | None = None
    iou: float | None = None
    sigma: float | None = None
    class_agnostic: bool | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """The origin of a model, for people to read."""

    source: str = ""
    dataset: str = ""
    metrics: str = ""
    licence: str = ""


@dataclass(frozen=True)
class ModelContract:
    """Everything a server must know about an ONNX detector, so that it never guesses.

    The graph's one output is `(N, A, 4 + 1 + C)`: four raw box values, objectness, and C classes
    for each of the A grid cells, levels in ascending stride, cells row by row.

    Attributes:
        name: The model's name, as clients see it.
        version: The model's version, as clients see it.
        input: The image tensor.
        class_names: One name for each of the C classes, in order.
        strides: Pixels per cell of each level, ascending.
        box_coding: How the four raw box values become a box.
        score_activation: Whether objectness and classes are logits or already probabilities.
        recommended: Thresholds to prefer over the service's defaults.
        provenance: The model's origin.
        contract_version: Version of this structure.

    Raises:
        ContractError: A value is out of range, or two values contradict each other.
    """

    name: str
    version: str
    input: InputSpec
    class_names: tuple[str, ...]
    strides: tuple[int, ...] = (8, 16, 32)
    box_coding: BoxCoding = "yolox"
    score_activation: ScoreActivation = "logits"
    recommended: Recommended = field(default_factory=Recommended)
    provenance: Provenance = field(default_factory=Provenance)
    contract_version: int = CONTRACT_VERSION

    def __post_init__(self) -> None:
        problems = [message for broken, message in _rules(self) if broken]
        if problems:
            raise ContractError("; ".join(problems))

    @cached_property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return len(self.class_names)

    @cached_property
    def output_channels(self) -> int:
        """4 + 1 + C, the length of one raw row."""
        return 5 + self.num_classes

    def num_cells(self, height: int, width: int) -> int:
        """A, the number of grid cells (raw rows) of an input of this size in pixels."""
        return sum((height // stride) * (width // stride) for stride in self.strides)

    def rows_shape(self, count: int, height: int, width: int) -> tuple[int, int, int]:
        """(N, A, 4 + 1 + C), the shape of the raw rows of N inputs of this size in pixels."""
        return count, self.num_cells(height, width), self.output_channels

    @cached_property
    def least_side(self) -> int:
        """The minimum height and width of an input, pixels."""
        return self.input.least_side or max(self.strides)

    def to_metadata(self) -> dict[str, str]:
        """The ONNX metadata properties that carry this contract."""
        return {METADATA_KEY: json.dumps(dataclasses.asdict(self), ensure_ascii=False)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """Read a contract back from a model's metadata properties.

        Raises:
            ContractError: The contract is missing, of an unknown version, malformed or
                contradictory.
        """
        text = metadata.get(METADATA_KEY)
        if text is None:
            raise ContractError("the file carries no model contract")
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise ContractError(f"the model contract is not JSON: {error}") from error
        version = fields.get("contract_version") if isinstance(fields, dict) else None
        if version != CONTRACT_VERSION:
            raise ContractError(
                f"the model contract has version {version!r}, and this release reads "
                f"version {CONTRACT_VERSION}"
            )
        return typing.cast("Self", _read(cls, fields, "contract"))


def _rules(contract: ModelContract) -> list[tuple[bool, str]]:
    """Every rule for a contract, as (whether the contract breaks it, the error message)."""
    image, strides, advice = contract.input, contract.strides, contract.recommended
    largest = max((1, *strides))
    low, high = image.value_range
    return [
        (not contract.name, "name is empty"),
        (not contract.class_names, "class_names is empty"),
        (len(set(contract.class_names)) != contract.num_classes, "class_names has duplicates"),
        (not strides or min(strides, default=0) < 1, "strides must be positive"),
        (list(strides) != sorted(set(strides)), "strides must ascend"),
        (
            not _is_multiple(image.height, largest) or not _is_multiple(image.width, largest),
            f"input size {image.height}x{image.width} is not a multiple of the largest stride",
        ),
        (
            not _is_least_side(image, largest),
            f"least_side {image.least_side} is not a multiple of {largest} within a dynamic size",
        ),
        (image.batch is not None and image.batch < 1, "input batch must be positive"),
        (image.dtype == "uint8" and (low, high) != (0.0, 255.0), "uint8 input implies 0 to 255"),
        (low >= high, "value_range must ascend"),
        (not 0 <= image.pad_value <= 255, "pad_value must be a pixel value, 0 to 255"),
        (not _fraction(advice.confidence), "recommended confidence must be within 0 and 1"),
        (not _fraction(advice.iou), "recommended iou must be within 0 and 1"),
        (
            advice.sigma is not None and not MIN_SIGMA <= advice.sigma <= MAX_SIGMA,
            f"recommended sigma must be within {MIN_SIGMA:g} and {MAX_SIGMA:g}",
        ),
    ]


def _is_multiple(size: int, stride: int) -> bool:
    return size > 0 and size % stride == 0


def _is_least_side(image: InputSpec, stride: int) -> bool:
    if image.least_side is None:
        return True
    fits = image.least_side <= min(image.height, image.width)
    return image.dynamic_size and fits and _is_multiple(image.least_side, stride)


def _fraction(value: float | None) -> bool:
    return value is None or 0.0 <= value <= 1.0


def _read(annotation: Any, value: object, where: str) -> object:  # noqa: ANN401 - a type expression
    """Turn parsed JSON into the annotated type, naming the field that does not fit."""
    if dataclasses.is_dataclass(annotation):
        return _read_dataclass(typing.cast("type", annotation), value, where)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        inner = next(argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _read(inner, value, where)
    if origin is tuple:
        return _read_tuple(arguments, value, where)
    if origin is Literal:
        if value in arguments:
            return value
        raise ContractError(f"{where} is {value!r}, and must be one of {', '.join(arguments)}")
    if annotation is float and type(value) is int:
        return float(value)
    if type(value) is annotation:
        return value
    raise ContractError(f"{where} is {value!r}, and must be {annotation.__name__}")


def _read_tuple(arguments: tuple[Any, ...], value: object, where: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise ContractError(f"{where} is {value!r}, and must be a list")
    if arguments[-1] is not Ellipsis and len(value) != len(arguments):
        raise ContractError(f"{where} must have {len(arguments)} entries")
    return tuple(_read(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))


def _read_dataclass(cls: type, value: object, where: str) -> object:
    if not isinstance(value, dict):
        raise ContractError(f"{where} is {value!r}, and must be an object")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise ContractError(f"{where} has unknown fields: {', '.join(unknown)}")
    fields = dataclasses.fields(cls)
    required = {f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING}
    missing = sorted(required - set(value))
    if missing:
        raise ContractError(f"{where} lacks {', '.join(missing)}")
    arguments = {key: _read(hints[key], item, f"{where}.{key}") for key, item in value.items()}
    return cls(**arguments)
