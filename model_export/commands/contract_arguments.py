"""Arguments for the parts of a contract that no file states: thresholds and provenance."""

import argparse
from typing import get_args

from service.core.contract import NmsMethod, Provenance, Recommended, ScoreBy


def add_recommended_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the thresholds that a model may recommend."""
    group = parser.add_argument_group(
        "thresholds to recommend (default: none; the service's apply)"
    )
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
