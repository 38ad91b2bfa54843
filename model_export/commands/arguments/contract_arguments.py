"""Arguments for the parts of a contract that no file states: thresholds and provenance."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Group, Parameter

from model_export.errors import ModelExportError
from service.core.contract import ColorOrder, NmsMethod, Provenance, Recommended, ScoreBy

if TYPE_CHECKING:
    from model_export.graphs.pixel_values import PixelValues

THRESHOLDS: Final = Group("Thresholds to recommend", sort_key=50)
PROVENANCE: Final = Group("Provenance, as free text", sort_key=51)
LeastSide = Annotated[
    int | None,
    Parameter(
        metavar="N",
        help="Pad narrow images to N pixels, for a model not trained on narrow ones (unset: 32)",
    ),
]
Text = Annotated[str, Parameter(metavar="TEXT")]
Channels = tuple[float, float, float]


@Parameter(name="*", group=THRESHOLDS)
@dataclass(frozen=True)
class RecommendedOptions:
    """The thresholds that a model may recommend; those that are None are not stated."""

    confidence: Annotated[
        float | None, Parameter(metavar="P", help="Minimum confidence, 0 to 1")
    ] = None
    score_by: Annotated[ScoreBy | None, Parameter(help="The score that confidence applies to")] = (
        None
    )
    nms: Annotated[NmsMethod | None, Parameter(help="Suppression method")] = None
    iou: Annotated[
        float | None, Parameter(metavar="P", help="IoU threshold of suppression, 0 to 1")
    ] = None
    sigma: Annotated[
        float | None, Parameter(metavar="S", help="Width of the Gaussian of soft-gaussian")
    ] = None
    class_agnostic: Annotated[
        bool | None, Parameter(help="Let boxes of different classes suppress each other")
    ] = None

    def contract_part(self) -> Recommended:
        """The given thresholds, as the contract has them."""
        return Recommended(
            confidence=self.confidence,
            score_by=self.score_by,
            nms=self.nms,
            iou=self.iou,
            sigma=self.sigma,
            class_agnostic=self.class_agnostic,
        )


@Parameter(name="*", group=PROVENANCE)
@dataclass(frozen=True)
class ProvenanceOptions:
    """Texts about a model's origin."""

    source: Text = ""
    dataset: Text = ""
    metrics: Text = ""
    licence: Text = ""

    def contract_part(self) -> Provenance:
        """The given texts, as the contract has them."""
        return Provenance(
            source=self.source, dataset=self.dataset, metrics=self.metrics, licence=self.licence
        )


@Parameter(name="*")
@dataclass(frozen=True)
class PixelOptions:
    """The pixel values that a network takes."""

    preprocessing: Annotated[
        Literal["yolox", "legacy"] | None,
        Parameter(
            help="Pixel values by name: `yolox` is BGR of 0 to 255; `legacy`, of YOLOX 0.1.0 and "
            "its --legacy, is RGB of 0 to 1 less ImageNet's mean, divided by its deviation "
            "(unset: `adopt` finds out by trying, `export` takes yolox)",
        ),
    ] = None
    color: Annotated[ColorOrder | None, Parameter(help="Channel order")] = None
    value_range: Annotated[
        tuple[float, float] | None,
        Parameter(
            metavar="LOW HIGH",
            help="Input values for pixel values 0 and 255, before mean and deviation apply",
        ),
    ] = None
    mean: Annotated[
        Channels | None,
        Parameter(
            metavar="N N N",
            help="Mean to subtract, for each channel in the order of --color and the units of "
            "--value-range",
        ),
    ] = None
    std: Annotated[
        Channels | None,
        Parameter(metavar="N N N", help="Standard deviation to divide by, like --mean"),
    ] = None


def pixel_values(given: PixelOptions) -> "PixelValues | None":
    """The stated pixel values, or None if nothing is stated.

    A mean or deviation without a range is in the units of 0 to 1 if all of it is within 1, and then
    of RGB unless another order is stated; that is how they are published.

    Raises:
        ModelExportError: A name and numbers are stated both, or numbers are impossible.
    """
    from model_export.graphs.pixel_values import LEGACY, PixelValues  # noqa: PLC0415

    numbers = (given.color, given.value_range, given.mean, given.std)
    if given.preprocessing:
        if any(number is not None for number in numbers):
            raise ModelExportError(
                "--preprocessing says it all; leave --color, --value-range, --mean and --std out"
            )
        return LEGACY if given.preprocessing == "legacy" else PixelValues()
    if all(number is None for number in numbers):
        return None
    mean, std = given.mean or (0.0, 0.0, 0.0), given.std or (1.0, 1.0, 1.0)
    is_normalised = given.mean is not None or given.std is not None
    of_unit = is_normalised and max(*map(abs, mean), *std) <= 1
    usual: ColorOrder = "RGB" if is_normalised else "BGR"
    value_range = given.value_range or ((0.0, 1.0) if of_unit else (0.0, 255.0))
    return PixelValues(given.color or usual, value_range, mean, std)
