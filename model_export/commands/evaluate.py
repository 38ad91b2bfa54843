"""`python -m model_export evaluate`: measure a server, a file or a checkpoint on a COCO set."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from model_export.commands.argument_types import fraction, gaussian_width, positive, size
from model_export.commands.weights_kind import kind_of_weights, names_of_weights
from model_export.errors import ModelExportError
from model_export.measure.published_options import MEASURING
from model_export.model.variants import HEAD_KINDS, VARIANTS, plain_variant, usual_size
from service.core.contract import (
    BoxCoding,
    ContractError,
    InputSpec,
    ModelContract,
    NmsMethod,
    ScoreBy,
)
from service.core.letterbox import LetterboxMode
from service.core.suppress import DetectionOptions

if TYPE_CHECKING:
    from model_export.measure.coco import Metrics
    from model_export.measure.evaluate import Detector
    from model_export.model.checkpoint import Kind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = (
        "Run every image of a COCO json through a running server, an ONNX file or a checkpoint, "
        "and print the COCO metrics of the detections. Classes are matched by name. The default "
        "thresholds are those of published YOLOX results, which differ from those for production."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--server", metavar="URL", help="such as http://127.0.0.1:8000")
    what.add_argument("--model", type=Path, metavar="FILE", help="an ONNX file with a contract")
    what.add_argument("--weights", type=Path, metavar="FILE", help="a .pth checkpoint, or .npz")
    parser.add_argument(
        "--annotations", required=True, type=Path, metavar="JSON", help="COCO annotations"
    )
    parser.add_argument(
        "--images", required=True, type=Path, metavar="DIR", help="folder of the images"
    )
    parser.add_argument("--api-key", metavar="KEY", help="(default: $YOLOX_API_KEY)")
    parser.add_argument(
        "--concurrency",
        type=positive,
        default=8,
        metavar="N",
        help="requests at once (default: 8)",
    )
    parser.add_argument(
        "--letterbox",
        choices=get_args(LetterboxMode),
        help="how to letterbox images for a file or checkpoint (default: like a server on a CPU, "
        "rectangle if the model accepts any size; published results use square)",
    )
    parser.add_argument("--output", type=Path, metavar="JSON", help="file for the detections")
    parser.add_argument("--metrics", type=Path, metavar="JSON", help="file for the metrics")
    _add_option_arguments(parser.add_argument_group("options"))
    _add_weights_arguments(parser.add_argument_group("with --weights"))


def run(arguments: argparse.Namespace) -> None:
    """Measure, print the metrics, and write the files asked for."""
    # Only here, so that `--help` and the other commands need none of these packages.
    from model_export.measure.coco import measure, read_coco_set  # noqa: PLC0415
    from model_export.measure.evaluate import detect_all  # noqa: PLC0415

    coco = read_coco_set(arguments.annotations, arguments.images)
    for path in (arguments.output, arguments.metrics):
        if path and (path.is_dir() or not path.parent.is_dir()):
            why = "it is a folder" if path.is_dir() else "there is no such folder"
            raise ModelExportError(f"cannot write {path}: {why}")
    with _detector(arguments) as detector, _progress(len(coco.images)) as on_image:
        results = detect_all(detector, coco, concurrency=arguments.concurrency, on_image=on_image)
    metrics = measure(coco, results)
    sys.stdout.write(_report(metrics))
    _write(arguments.output, json.dumps(results))
    _write(arguments.metrics, metrics.to_json())


@contextmanager
def _detector(arguments: argparse.Namespace) -> Iterator["Detector"]:
    """Open the detector to measure."""
    if arguments.server:
        if arguments.letterbox:
            raise ModelExportError(
                "--letterbox does not apply to --server: it is the server's setting"
            )
        from model_export.measure.server_detector import ServerDetector, connect  # noqa: PLC0415

        api_key = arguments.api_key or os.environ.get("YOLOX_API_KEY")
        with connect(arguments.server, api_key) as client:
            yield ServerDetector(client, _query(arguments))
    elif arguments.model:
        from model_export.measure.local_detector import onnx_detector  # noqa: PLC0415

        options = DetectionOptions(**_options(arguments))
        yield onnx_detector(arguments.model, options, arguments.letterbox)
    else:
        yield _checkpoint_detector(arguments)


def _checkpoint_detector(arguments: argparse.Namespace) -> "Detector":
    from model_export.measure.local_detector import checkpoint_detector  # noqa: PLC0415
    from model_export.model.about import read_about  # noqa: PLC0415

    kind = kind_of_weights(arguments.weights, arguments.variant, arguments.head)
    about = read_about(arguments.weights)
    contract = _checkpoint_contract(arguments, kind, about.contract if about else None)
    options = DetectionOptions(**_options(arguments))
    return checkpoint_detector(
        arguments.weights,
        kind.variant,
        kind.head,
        contract,
        options,
        arguments.letterbox,
    )


def _checkpoint_contract(
    arguments: argparse.Namespace, kind: "Kind", known: ModelContract | None
) -> ModelContract:
    """The contract of a checkpoint; what is not stated is as the checkpoint says."""
    side = usual_size(kind.variant)
    usual = (known.input.height, known.input.width) if known else (side, side)
    height, width = arguments.size or usual
    try:
        return ModelContract(
            name=kind.variant,
            version="0",
            input=InputSpec("images", height, width, dynamic_size=True),
            class_names=names_of_weights(arguments.names, kind, known),
            box_coding=arguments.box_coding or (known.box_coding if known else "yolox"),
        )
    except ContractError as error:
        raise ModelExportError(str(error)) from error


def _add_weights_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--variant",
        type=plain_variant,
        choices=VARIANTS,
        help="the network of the weights (default: found out, like what follows)",
    )
    group.add_argument(
        "--head", choices=HEAD_KINDS, help="(default: the checkpoint's, or decoupled)"
    )
    group.add_argument(
        "--names",
        help="`coco`, or a file of one name per line (default: the checkpoint's, or coco)",
    )
    group.add_argument(
        "--size",
        type=size,
        metavar="N|HxW",
        help="height and width (default: the checkpoint's, or the variant's)",
    )
    group.add_argument(
        "--box-coding",
        choices=get_args(BoxCoding),
        help="(default: the checkpoint's, or yolox)",
    )


def _add_option_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--confidence",
        type=fraction,
        default=MEASURING.confidence,
        metavar="P",
        help="minimum score (default: 0.001)",
    )
    group.add_argument(
        "--score-by",
        choices=get_args(ScoreBy),
        default=MEASURING.score_by,
        help="(default: joint)",
    )
    group.add_argument(
        "--nms",
        choices=get_args(NmsMethod),
        default=MEASURING.nms,
        help="suppression method (default: hard)",
    )
    group.add_argument(
        "--iou",
        type=fraction,
        default=MEASURING.iou,
        metavar="P",
        help="IoU threshold of suppression (default: 0.65)",
    )
    group.add_argument(
        "--sigma",
        type=gaussian_width,
        metavar="S",
        help="width of the Gaussian of soft-gaussian (default: the server's, or 0.5)",
    )
    group.add_argument(
        "--class-agnostic",
        action=argparse.BooleanOptionalAction,
        default=MEASURING.class_agnostic,
        help="let boxes of different classes suppress each other (default: no)",
    )
    group.add_argument(
        "--max-detections",
        type=positive,
        metavar="N",
        help="maximum detections per image (default: the server's limit, or 300)",
    )


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The given options; the detector's defaults apply to the others."""
    options = {
        "confidence": arguments.confidence,
        "score_by": arguments.score_by,
        "nms": arguments.nms,
        "iou": arguments.iou,
        "sigma": arguments.sigma,
        "class_agnostic": arguments.class_agnostic,
        "max_detections": arguments.max_detections,
    }
    return {name: value for name, value in options.items() if value is not None}


def _query(arguments: argparse.Namespace) -> dict[str, str]:
    """The options as query parameters."""
    return {name: str(value).lower() for name, value in _options(arguments).items()}


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Show a bar if stderr is a terminal; yield the function to call after each image."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import MofNCompleteColumn, Progress  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("images", total=total)
        yield lambda: progress.advance(task)


def _write(path: Path | None, text: str) -> None:
    if path is None:
        return
    try:
        path.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise ModelExportError(f"cannot write {path}: {error.strerror}") from error


def _report(metrics: "Metrics") -> str:
    """One line for each metric and class: the name, and the value or a dash."""
    by_class = {f"AP of {name}": value for name, value in metrics.ap_by_class.items()}
    rows = {**metrics.overall, **by_class}
    width = max(map(len, rows))
    return "".join(
        f"{label:<{width}}  {'-' if value is None else format(value, '.4f')}\n"
        for label, value in rows.items()
    )
