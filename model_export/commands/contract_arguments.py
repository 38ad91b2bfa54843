"""Arguments for the parts of a contract that no file states: thresholds and provenance."""

import argparse
from typing import TYPE_CHECKING, get_args

from model_export.errors import ModelExportError
from service.core.contract import ColorOrder, NmsMethod, Provenance, Recommended, ScoreBy

if TYPE_CHECKING:
    from model_export.graphs.pixel_values import PixelValues


def add_recommended_arguments(
    parser: argparse.ArgumentParser, default: str = "none; the service's apply"
) -> None:
    """Describe the thresholds that a model may recommend."""
    group = parser.add_argument_group(f"thresholds to recommend (default: {default})")
    group.add_argument("--confidence", type=float, metavar="P", help="minimum confidence, 0 to 1")
    group.add_argument(
        "--score-by", choices=get_args(ScoreBy), help="the score that confidence applies to"
    )
    group.add_argument("--nms", choices=get_args(NmsMethod), help="suppression method")
    group.add_argument(
        "--iou", type=float, metavar="P", help="IoU threshold of suppression, 0 to 1"
    )
    group.add_argument(
        "--sigma", type=float, metavar="S", help="width of the Gaussian of soft-gaussian"
    )
    group.add_argument(
        "--class-agnostic",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="let boxes of different classes suppress each other",
    )


def add_least_side_argument(group: argparse._ArgumentGroup) -> None:
    """Describe the minimum side of an input."""
    group.add_argument(
        "--least-side",
        type=int,
        metavar="N",
        help="pad narrow images to N pixels, for a model not trained on narrow ones (default: 32)",
    )


def add_pixel_arguments(group: argparse._ArgumentGroup, default: str) -> None:
    """Describe the pixel values that a network takes."""
    group.add_argument(
        "--preprocessing",
        choices=("yolox", "legacy"),
        help="pixel values by name: `yolox` is BGR of 0 to 255; `legacy`, of YOLOX 0.1.0 and its "
        "--legacy, is RGB of 0 to 1 less ImageNet's mean, divided by its deviation "
        f"(default: {default})",
    )
    group.add_argument("--color", choices=get_args(ColorOrder), help="channel order")
    group.add_argument(
        "--value-range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="input values for pixel values 0 and 255, before mean and deviation apply",
    )
    for name, what in (("mean", "mean to subtract"), ("std", "standard deviation to divide by")):
        group.add_argument(
            f"--{name}",
            nargs=3,
            type=float,
            metavar="N",
            help=f"{what}, for each channel in the order of --color and the units of --value-range",
        )


def pixel_values(arguments: argparse.Namespace) -> "PixelValues | None":
    """The stated pixel values, or None if nothing is stated.

    A mean or deviation without a range is in the units of 0 to 1 if all of it is within 1, and then
    of RGB unless another order is stated; that is how they are published.

    Raises:
        ModelExportError: A name and numbers are stated both, or numbers are impossible.
    """
    from model_export.graphs.pixel_values import LEGACY, PixelValues  # noqa: PLC0415

    numbers = (arguments.color, arguments.value_range, arguments.mean, arguments.std)
    if arguments.preprocessing:
        if any(number is not None for number in numbers):
            raise ModelExportError(
                "--preprocessing says it all; leave --color, --value-range, --mean and --std out"
            )
        return LEGACY if arguments.preprocessing == "legacy" else PixelValues()
    if all(number is None for number in numbers):
        return None
    mean, std = arguments.mean or (0.0, 0.0, 0.0), arguments.std or (1.0, 1.0, 1.0)
    is_normalised = arguments.mean is not None or arguments.std is not None
    of_unit = is_normalised and max(*map(abs, mean), *std) <= 1
    low, high = arguments.value_range or ((0.0, 1.0) if of_unit else (0.0, 255.0))
    usual: ColorOrder = "RGB" if is_normalised else "BGR"
    color: ColorOrder = arguments.color or usual
    return PixelValues(color, (low, high), (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def add_provenance_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the texts about a model's origin."""
    group = parser.add_argument_group("provenance, as free text")
    for name in ("source", "dataset", "metrics", "licence"):
        group.add_argument(f"--{name}", default="", metavar="TEXT")


def recommended(arguments: argparse.Namespace) -> Recommended:
    """The given thresholds."""
    return Recommended(
        confidence=arguments.confidence,
        score_by=arguments.score_by,
        nms=arguments.nms,
        iou=arguments.iou,
        sigma=arguments.sigma,
        class_agnostic=arguments.class_agnostic,
    )


def provenance(arguments: argparse.Namespace) -> Provenance:
    """The given texts."""
    return Provenance(
        source=arguments.source,
        dataset=arguments.dataset,
        metrics=arguments.metrics,
        licence=arguments.licence,
    )
