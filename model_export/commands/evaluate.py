"""`yolox-serve evaluate`: measure a server, a file or a checkpoint on a data set."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Group, Parameter

from model_export.commands.arguments.argument_types import (
    SWITCH,
    Fraction,
    Network,
    Positive,
    Sigma,
    Size,
    check_exactly_one,
    given_options,
)
from model_export.commands.data_sets.measuring_data import MeasuringData
from model_export.commands.reporting import command
from model_export.commands.weights_kind import kind_of_weights, names_of_weights
from model_export.data.sources import SINGLE_CLASS, DataSource
from model_export.errors import ModelExportError
from model_export.measure.published_options import MEASURING
from model_export.model.variants import HeadKind, usual_size
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
    from model_export.measure.coco import CocoSet, Metrics
    from model_export.measure.evaluate import Detector
    from model_export.model.checkpoint import Kind

MEASURED: Final = Group("Measure one of these", sort_key=1)
OPTIONS: Final = Group("Detection options", sort_key=2)
WEIGHTS: Final = Group("With --weights", sort_key=3)


@Parameter(name="*", group=MEASURED)
@dataclass(frozen=True)
class MeasuredOptions:
    """The detector to measure."""

    server: Annotated[
        str | None, Parameter(metavar="URL", help="A server, such as http://127.0.0.1:8000")
    ] = None
    model: Annotated[
        Path | None, Parameter(metavar="FILE", help="An ONNX file with a contract")
    ] = None
    weights: Annotated[
        Path | None, Parameter(metavar="FILE", help="A .pth checkpoint, or .npz")
    ] = None


@Parameter(name="*", group=OPTIONS)
@dataclass(frozen=True)
class OptionsToMeasure:
    """The options of detection; those that are None are the detector's."""

    confidence: Annotated[Fraction, Parameter(help="Minimum score")] = MEASURING.confidence
    score_by: Annotated[ScoreBy, Parameter(help="The score that confidence applies to")] = (
        MEASURING.score_by
    )
    nms: Annotated[NmsMethod, Parameter(help="Suppression method")] = MEASURING.nms
    iou: Annotated[Fraction, Parameter(help="IoU threshold of suppression")] = MEASURING.iou
    sigma: Annotated[
        Sigma | None,
        Parameter(help="Width of the Gaussian of soft-gaussian (unset: the server's, or 0.5)"),
    ] = None
    class_agnostic: Annotated[
        bool, Parameter(help="Let boxes of different classes suppress each other")
    ] = MEASURING.class_agnostic
    max_detections: Annotated[
        Positive | None,
        Parameter(help="Maximum detections per image (unset: the server's limit, or 300)"),
    ] = None

    def for_detector(self) -> DetectionOptions:
        """The options, with the detector's defaults for the others."""
        return DetectionOptions(**given_options(self))

    def as_query(self) -> dict[str, str]:
        """The given options as query parameters."""
        return {name: str(value).lower() for name, value in given_options(self).items()}


@Parameter(name="*", group=WEIGHTS)
@dataclass(frozen=True)
class WeightsOptions:
    """The network that the weights belong to."""

    variant: Annotated[
        Network | None, Parameter(help="The network (unset: found out from the weights)")
    ] = None
    head: Annotated[
        HeadKind | None, Parameter(help="Its head (unset: found out from the weights)")
    ] = None
    names: Annotated[
        str | None,
        Parameter(
            metavar="coco|FILE",
            help="COCO's class names, or a file of one name per line (unset: the checkpoint's, or "
            "COCO's if there are 80 classes)",
        ),
    ] = None
    size: Annotated[
        Size | None,
        Parameter(help="Height and width in pixels (unset: the checkpoint's, or the variant's)"),
    ] = None
    box_coding: Annotated[
        BoxCoding | None,
        Parameter(help="Coding of the raw boxes (unset: the checkpoint's, or yolox)"),
    ] = None


@command("evaluate", extra="evaluate")
def run(  # noqa: PLR0913 - each argument is one of the command line
    *,
    data: MeasuringData = MeasuringData(),
    measured: MeasuredOptions = MeasuredOptions(),
    api_key: Annotated[
        str | None,
        Parameter(metavar="KEY", env_var="YOLOX_API_KEY", help="The server's API key"),
    ] = None,
    concurrency: Annotated[Positive, Parameter(help="Requests at once")] = 8,
    letterbox: Annotated[
        LetterboxMode | None,
        Parameter(
            help="How to letterbox images for a file or checkpoint (unset: like a server on a CPU, "
            "rectangle if the model accepts any size; published results use square)"
        ),
    ] = None,
    single_class: Annotated[
        bool, SWITCH, Parameter(help="Take all classes for one: are objects found at all?")
    ] = False,
    output: Annotated[
        Path | None, Parameter(metavar="JSON", help="File for the detections")
    ] = None,
    metrics: Annotated[Path | None, Parameter(metavar="JSON", help="File for the metrics")] = None,
    options: OptionsToMeasure = OptionsToMeasure(),
    network: WeightsOptions = WeightsOptions(),
) -> None:
    """Measure a server, a file or a checkpoint on a data set.

    Run every image of a data set through the detector, and print the COCO metrics of what it finds.
    The data have the form COCO, YOLO, Pascal VOC or CSV. Classes are matched by name. The default
    thresholds are those of published YOLOX results; they are not meant for production.

    Example: `yolox-serve evaluate --model model.onnx --data val.json --images images/`
    """
    check_exactly_one(measured)
    # Only here, so that `--help` and the other commands need none of these packages.
    from model_export.measure.coco import measure  # noqa: PLC0415
    from model_export.measure.evaluate import OneClass, detect_all  # noqa: PLC0415

    coco = _read(data.source(), single_class=single_class)
    for path in (output, metrics):
        _check_writable(path)
    with (
        _detector(measured, options, network, letterbox, api_key) as detector,
        _progress(len(coco.images)) as on_image,
    ):
        if single_class:
            detector = OneClass(detector, SINGLE_CLASS)  # noqa: PLW2901 - measured in its place
        results = detect_all(detector, coco, concurrency=concurrency, on_image=on_image)
    measurement = measure(coco, results)
    sys.stdout.write(_report(measurement))
    _write(output, json.dumps(results))
    _write(metrics, measurement.to_json())


def _read(source: DataSource, *, single_class: bool) -> "CocoSet":
    """Read the data to measure on, and tell how they were read."""
    from model_export.data.forms.splits import NoSplitError  # noqa: PLC0415
    from model_export.measure.validation_data import read_set_to_measure  # noqa: PLC0415

    try:
        coco, lines = read_set_to_measure(source)
    except NoSplitError as error:
        raise ModelExportError(f"{error.fact}: name one with --split") from error
    sys.stderr.writelines(f"{line}\n" for line in lines)
    return coco.as_one_class(SINGLE_CLASS) if single_class else coco


def _check_writable(path: Path | None) -> None:
    if path and (path.is_dir() or not path.parent.is_dir()):
        why = "it is a folder" if path.is_dir() else "there is no such folder"
        raise ModelExportError(f"cannot write {path}: {why}")


@contextmanager
def _detector(
    measured: MeasuredOptions,
    options: OptionsToMeasure,
    network: WeightsOptions,
    letterbox: LetterboxMode | None,
    api_key: str | None,
) -> Iterator["Detector"]:
    """Open the detector to measure."""
    if measured.server:
        if letterbox:
            raise ModelExportError(
                "--letterbox does not apply to --server: it is the server's setting"
            )
        from model_export.measure.server_detector import ServerDetector, connect  # noqa: PLC0415

        with connect(measured.server, api_key) as client:
            yield ServerDetector(client, options.as_query())
    elif measured.model:
        from model_export.measure.local_detector import onnx_detector  # noqa: PLC0415

        yield onnx_detector(measured.model, options.for_detector(), letterbox)
    elif measured.weights:
        yield _checkpoint_detector(measured.weights, network, options, letterbox)


def _checkpoint_detector(
    weights: Path,
    network: WeightsOptions,
    options: OptionsToMeasure,
    letterbox: LetterboxMode | None,
) -> "Detector":
    from model_export.measure.local_detector import checkpoint_detector  # noqa: PLC0415
    from model_export.model.about import read_about  # noqa: PLC0415

    kind = kind_of_weights(weights, network.variant, network.head)
    about = read_about(weights)
    contract = _checkpoint_contract(network, kind, about.contract if about else None)
    return checkpoint_detector(
        weights, kind.variant, kind.head, contract, options.for_detector(), letterbox
    )


def _checkpoint_contract(
    given: WeightsOptions, kind: "Kind", known: ModelContract | None
) -> ModelContract:
    """The contract of a checkpoint; what is not given is as the checkpoint says."""
    side = usual_size(kind.variant)
    usual = (known.input.height, known.input.width) if known else (side, side)
    height, width = given.size or usual
    try:
        return ModelContract(
            name=kind.variant,
            version="0",
            input=InputSpec("images", height, width, dynamic_size=True),
            class_names=names_of_weights(given.names, kind, known),
            box_coding=given.box_coding or (known.box_coding if known else "yolox"),
        )
    except ContractError as error:
        raise ModelExportError(str(error)) from error


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
