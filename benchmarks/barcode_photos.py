"""How well a barcode detector does on photos whose symbols an independent decoder has read.

    python benchmarks/barcode_photos.py --photos FOLDER --model FILE.onnx [--sheet worst.jpg]
    python benchmarks/barcode_photos.py --photos FOLDER --server http://127.0.0.1:8000
    python benchmarks/barcode_photos.py --photos FOLDER --model FILE.onnx --thresholds

FOLDER holds a truth.json. A COCO json, as `demo-data --subject barcodes` writes it, may be given
instead; a symbol's text is then what its own box decodes to, if anything. Options that are not
given have the values that the model recommends, else the service's defaults.

Columns, each a share of the symbols:

found     a box of the symbol's class has an IoU of 0.5 or more with it; for linear symbols, whose
          truth is only the scanned line, it covers half of that line's strip
useful    some box, its sides 10 % longer (5 % at either end), decodes to exactly the symbol's text,
          by zxing-cpp's defaults; if a crop has several symbols, any of them counts, of any format
useful+   the same with sides 20 % longer (10 % at either end)
whole     the whole photo decodes to the symbol's text: the upper limit of `useful`
truth     the true box, its sides 10 % longer, decodes to it; no limit where that is only a line

CPU time is that of all threads; with `taskset -c 0` before the command they do not spin.
"""

import argparse
import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from barcode_sheet import draw_sheet
from numpy.typing import NDArray

from model_export.commands.arguments.argument_types import fraction
from model_export.errors import ModelExportError
from model_export.measure.barcodes.photos import (
    PhotoOutcome,
    Tally,
    false_alarms,
    measure_photos,
    tally,
)
from model_export.measure.barcodes.truth import Photo, Reader, read_drawn, read_photos
from model_export.measure.evaluate import Detector, Found
from model_export.measure.local_detector import LocalDetector, Network, load_onnx
from model_export.measure.server_detector import ServerDetector, connect
from service.core.contract import NmsMethod, ScoreBy
from service.core.suppress import DetectionOptions, with_recommended

MATRIX = ("qr_code", "data_matrix", "aztec", "pdf417")
CLASSES = (*MATRIX, "linear")
# From few boxes to many, because decoding each box takes time.
THRESHOLDS = (0.9, 0.8, 0.7, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05)

# Maps a confidence, or None for the default, to a detector with that confidence.
Source = Callable[[float | None], Detector]


def main() -> None:
    """Measure, and print the tables."""
    arguments = _arguments()
    try:
        photos = _photos(arguments.photos)
        with _source(arguments) as source:
            if arguments.thresholds:
                _print_thresholds(source, photos)
            else:
                outcomes = _print_one(source(arguments.confidence), photos)
                if arguments.sheet:
                    draw_sheet(outcomes, arguments.sheet, arguments.sheet_photos)
    except ModelExportError as error:
        raise SystemExit(f"error: {error}") from error


def _photos(source: Path) -> list[Photo]:
    return read_drawn(source, Reader()) if source.is_file() else read_photos(source)


def _print_one(detector: Detector, photos: list[Photo]) -> list[PhotoOutcome]:
    timed = TimedDetector(detector)
    outcomes = measure_photos(timed, photos, Reader(), lambda: None)
    print(f"{'':12} symbols  found  useful useful+  whole  truth")
    for label, names in [*((name, (name,)) for name in CLASSES), ("matrix", MATRIX)]:
        print(f"{label:12}{_row(tally(outcomes, names))}")
    print(f"{'all':12}{_row(tally(outcomes, CLASSES))}\n")
    empty = [outcome for outcome in outcomes if not outcome.photo.symbols]
    strays = sum(len(outcome.strays) for outcome in outcomes if outcome.photo.symbols)
    readable = sum(outcome.readable_strays for outcome in outcomes if outcome.photo.symbols)
    print(f"boxes on the {len(empty)} photos without symbols: {false_alarms(outcomes)}")
    print(f"boxes on no symbol of the truth elsewhere: {strays}, of which {readable} decode")
    print(f"CPU time of an image: {np.median(timed.cpu_ms):.1f} ms (median; of this process)")
    _print_failures(outcomes)
    return outcomes


def _row(counts: Tally) -> str:
    total = counts.symbols or float("nan")
    columns = (counts.found, counts.useful, counts.useful_generous)
    columns += (counts.readable_whole, counts.readable_truth)
    return f"{counts.symbols:8} " + " ".join(f"{count / total:6.3f}" for count in columns)


def _print_failures(outcomes: list[PhotoOutcome]) -> None:
    """Print a line for each symbol that is missed or cannot be read, and for each false alarm."""
    for outcome in outcomes:
        name = f"{outcome.photo.path.parent.name}/{outcome.photo.path.name}"
        for each in outcome.symbols:
            if not each.faulty:
                continue
            what = "found" if each.found else f"missed (best IoU {each.box_iou:.2f})"
            what = f"taken for {each.other_class}" if each.other_class else what
            end = "decodes" if each.useful else "does not decode"
            print(f"  {name}: {each.symbol.class_name} {what}, {end}")
        if not outcome.photo.symbols:
            for box in outcome.boxes:
                print(f"  {name}: background taken for {box.class_name}, {box.score:.3f}")


def _print_thresholds(source: Source, photos: list[Photo]) -> None:
    """Print a line for each confidence; a text that was read once is not read again."""
    reader = Reader()
    print(f"confidence  matrix  {'  '.join(CLASSES)}  useful useful+  false  strays (decode)")
    for confidence in THRESHOLDS:
        outcomes = measure_photos(source(confidence), photos, reader, lambda: None)
        everything = tally(outcomes, CLASSES)
        found = "  ".join(f"{tally(outcomes, (name,)).recall:{len(name)}.3f}" for name in CLASSES)
        strays = sum(len(outcome.strays) for outcome in outcomes if outcome.photo.symbols)
        readable = sum(outcome.readable_strays for outcome in outcomes if outcome.photo.symbols)
        print(
            f"{confidence:10.2f}  {tally(outcomes, MATRIX).recall:6.3f}  {found}  "
            f"{everything.usefulness:6.3f} {everything.useful_generous / everything.symbols:7.3f}"
            f"  {false_alarms(outcomes):5}  {strays:6} ({readable})",
            flush=True,
        )


@dataclass
class TimedDetector:
    """A detector that records the CPU time of each image, over all threads of this process."""

    detector: Detector

    def __post_init__(self) -> None:
        self.cpu_ms: list[float] = []

    def class_names(self) -> tuple[str, ...]:
        """The names of the detector's classes."""
        return self.detector.class_names()

    def detect(self, image: bytes) -> list[Found]:
        """Run the detector on an image file; gives what it finds."""
        started = time.process_time()
        found = self.detector.detect(image)
        self.cpu_ms.append((time.process_time() - started) * 1000)
        return list(found)


@contextlib.contextmanager
def _source(arguments: argparse.Namespace) -> Iterator[Source]:
    options = {"score_by": arguments.score_by, "nms": arguments.nms, "iou": arguments.iou}
    given = {name: value for name, value in options.items() if value is not None}
    if arguments.server:
        with connect(arguments.server, None) as client:
            query = {name: str(value) for name, value in given.items()}
            yield lambda confidence: ServerDetector(
                client, query | ({} if confidence is None else {"confidence": str(confidence)})
            )
        return
    network, contract = load_onnx(arguments.model)
    network = _remembering(network) if arguments.thresholds else network
    advised = replace(with_recommended(DetectionOptions(), contract.recommended), **given)
    yield lambda confidence: LocalDetector(
        network,
        contract,
        advised if confidence is None else replace(advised, confidence=confidence),
    )


def _remembering(network: Network) -> Network:
    """The same network, but run only once for each picture, so that many thresholds are cheap."""
    rows: dict[bytes, NDArray[np.floating]] = {}

    def remembered(images: NDArray[np.uint8]) -> NDArray[np.floating]:
        key = hashlib.sha256(images).digest()
        if key not in rows:
            rows[key] = network(images)
        return rows[key]

    return remembered


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER|JSON")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, metavar="FILE")
    what.add_argument("--server", metavar="URL")
    parser.add_argument("--confidence", type=fraction, metavar="P")
    parser.add_argument("--score-by", choices=get_args(ScoreBy))
    parser.add_argument("--nms", choices=get_args(NmsMethod))
    parser.add_argument("--iou", type=fraction, metavar="P")
    parser.add_argument(
        "--thresholds", action="store_true", help="a line for each of several confidences"
    )
    parser.add_argument("--sheet", type=Path, metavar="JPG", help="draw the worst pictures")
    parser.add_argument("--sheet-photos", type=int, default=120, metavar="N", help="at most (120)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
