"""The arguments about a contract that nobody but the person at the command line knows."""

import argparse
from typing import get_args

from service.core.contract import NmsMethod, Provenance, Recommended, ScoreBy


def add_recommended_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the thresholds that a model may recommend."""
    group = parser.add_argument_group(
        "thresholds to recommend (default: none, the service's apply)"
    )
    group.add_argument("--confidence", type=float, metavar="P", help="least confidence, 0 to 1")
    group.add_argument("--score-by", choices=get_args(ScoreBy), help="what confidence is")
    group.add_argument("--nms", choices=get_args(NmsMethod), help="suppression of overlaps")
    group.add_argument("--iou", type=float, metavar="P", help="overlap that counts, 0 to 1")
    group.add_argument("--sigma", type=float, metavar="S", help="width of soft-gaussian")
    group.add_argument(
        "--class-agnostic",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether boxes of different classes compete",
    )


def add_least_side_argument(group: argparse._ArgumentGroup) -> None:
    """Describe the least side of an input."""
    group.add_argument(
        "--least-side",
        type=int,
        metavar="N",
        help="pad narrow images to N pixels, for a model that learnt from none (default: 32)",
    )


def add_provenance_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the texts that say where a model comes from."""
    group = parser.add_argument_group("where it comes from, for people to read")
    for name in ("source", "dataset", "metrics", "licence"):
        group.add_argument(f"--{name}", default="", metavar="TEXT")


def recommended(arguments: argparse.Namespace) -> Recommended:
    """The thresholds as given."""
    return Recommended(
        confidence=arguments.confidence,
        score_by=arguments.score_by,
        nms=arguments.nms,
        iou=arguments.iou,
        sigma=arguments.sigma,
        class_agnostic=arguments.class_agnostic,
    )


def provenance(arguments: argparse.Namespace) -> Provenance:
    """The texts as given."""
    return Provenance(
        source=arguments.source,
        dataset=arguments.dataset,
        metrics=arguments.metrics,
        licence=arguments.licence,
    )
