"""The pipeline that users copy: YOLOX's own pre- and postprocessing, in OpenCV and numpy.

All peers serve this pipeline, so that they differ only in the framework. It imports nothing from
this project, because it runs in the environment of a peer.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

CONFIDENCE: Final = 0.3
IOU: Final = 0.45
# Maximum numbers of boxes before and after suppression: the defaults of our server.
MOST_CANDIDATES: Final = 1000
MOST_BOXES: Final = 300
WHOLE_RANGE: Final = (0.0, 255.0)
# The key of the contract, which says how to feed the model and how to read its rows.
METADATA_KEY: Final = "yolox_contract"


@dataclass(frozen=True, slots=True)
class Model:
    """How to feed a model, and how to read its rows.

    Attributes:
        input_name: The graph's input: (N, 3, H, W) float32.
        height: H, in pixels.
        width: W, in pixels.
        color_order: BGR or RGB.
        value_range: Input values that stand for pixel values 0 and 255.
        pad_value: Pixel value (0-255) of the border.
        strides: Pixels per cell of each level.
        box_coding: `yolox`: centre, in cells. `anchor_point`: top-left corner, in pixels from the
            cell's centre. Sizes are logarithms of strides in both.
    """

    input_name: str
    height: int
    width: int
    color_order: str
    value_range: tuple[float, float]
    pad_value: int
    strides: tuple[int, ...]
    box_coding: str


@dataclass(frozen=True, slots=True)
class OfficialBox:
    """One detection; the box is x1, y1, x2, y2 in image pixels."""

    class_id: int
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class OfficialAnswer:
    """A peer's answer for one image; the frameworks write it as a JSON object."""

    detections: list[OfficialBox]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A letterboxed image.

    Attributes:
        tensor: (3, H, W) float32, in the model's colour order and value range.
        ratio: Network pixels per image pixel.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
    """

    tensor: Floats
    ratio: float
    width: int
    height: int


class OfficialDetector:
    """A YOLOX file in ONNX Runtime, with the pipeline around it.

    Args:
        path: The model. It takes (N, 3, H, W) float32, gives probabilities for scores, and carries
            a contract.
        threads: Threads of one call.
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._model = _read_model(self._session.get_modelmeta().custom_metadata_map)
        # As many as the network, because otherwise each of several workers would use all CPUs.
        cv2.setNumThreads(threads)

    def prepare(self, content: bytes) -> Prepared:
        """Decode an image file, and fit it into the top left of the network's input.

        Raises:
            ValueError: The image cannot be decoded.
        """
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError("the image cannot be decoded")
        model = self._model
        height, width = image.shape[:2]
        ratio = min(model.height / height, model.width / width)
        fit_height, fit_width = int(height * ratio), int(width * ratio)
        canvas = np.full((model.height, model.width, 3), model.pad_value, np.uint8)
        canvas[:fit_height, :fit_width] = cv2.resize(
            image, (fit_width, fit_height), interpolation=cv2.INTER_LINEAR
        )
        if model.color_order == "RGB":
            canvas = canvas[:, :, ::-1]
        tensor = np.ascontiguousarray(canvas.transpose(2, 0, 1), dtype=np.float32)
        if model.value_range != WHOLE_RANGE:
            low, high = model.value_range
            tensor = tensor * np.float32((high - low) / 255) + np.float32(low)
        return Prepared(tensor, ratio, width, height)

    def infer(self, tensors: list[Floats]) -> Floats:
        """Run a batch of (3, H, W) tensors; gives (N, A, 5 + C) raw rows."""
        rows = self._session.run(None, {self._model.input_name: np.stack(tensors)})[0]
        return np.asarray(rows, dtype=np.float32)

    def finish(self, rows: Floats, prepared: Prepared) -> OfficialAnswer:
        """Decode the (A, 5 + C) rows of one image, filter and suppress them."""
        boxes = _decode(rows[:, :4], self._model)
        scores = rows[:, 4:5] * rows[:, 5:]
        class_ids = scores.argmax(axis=1)
        best = scores[np.arange(len(scores)), class_ids]
        confident = np.flatnonzero(best >= CONFIDENCE)
        confident = confident[np.argsort(-best[confident], kind="stable")][:MOST_CANDIDATES]
        kept = confident[_hard_nms(boxes[confident], class_ids[confident])][:MOST_BOXES]
        limits = np.array([prepared.width, prepared.height] * 2, np.float32)
        clipped = np.clip(boxes[kept] / np.float32(prepared.ratio), 0, limits)
        # Boxes that lie in the border are empty after clipping.
        visible = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
        return _answer(clipped[visible], best[kept[visible]], class_ids[kept[visible]])

    def detect(self, contents: list[bytes]) -> list[OfficialAnswer]:
        """Find the objects in some image files, which are run as one batch.

        Raises:
            ValueError: One of the images cannot be decoded.
        """
        return self.detect_prepared([self.prepare(content) for content in contents])

    def detect_prepared(self, batch: list[Prepared]) -> list[OfficialAnswer]:
        """Find the objects in prepared images, which are run as one batch."""
        rows = self.infer([prepared.tensor for prepared in batch])
        return [self.finish(rows[i], prepared) for i, prepared in enumerate(batch)]


def from_environment() -> OfficialDetector:
    """The detector that a peer serves, warmed up."""
    detector = OfficialDetector(
        Path(os.environ["PEER_MODEL"]), threads=int(os.environ["PEER_THREADS"])
    )
    blank = np.zeros((64, 64, 3), np.uint8)
    detector.detect([cv2.imencode(".jpg", blank)[1].tobytes()])
    return detector


def port() -> int:
    """The port that a peer listens on."""
    return int(os.environ["PEER_PORT"])


def workers() -> int:
    """The number of workers of a peer."""
    return int(os.environ["PEER_WORKERS"])


def to_json(answer: OfficialAnswer) -> bytes:
    """The JSON body of an answer, for frameworks that do not encode it themselves."""
    return json.dumps(asdict(answer)).encode()


def _read_model(metadata: Mapping[str, str]) -> Model:
    contract = json.loads(metadata[METADATA_KEY])
    spec = contract["input"]
    return Model(
        input_name=spec["name"],
        height=spec["height"],
        width=spec["width"],
        color_order=spec["color_order"],
        value_range=tuple(spec["value_range"]),
        pad_value=spec["pad_value"],
        strides=tuple(contract["strides"]),
        box_coding=contract["box_coding"],
    )


def _decode(raw: Floats, model: Model) -> Floats:
    """Turn (A, 4) raw values into (A, 4) corners in network pixels."""
    cells, strides = _grid(model.height, model.width, model.strides)
    sizes = np.exp(raw[:, 2:]) * strides
    if model.box_coding == "yolox":
        top_left = (raw[:, :2] + cells) * strides - sizes / 2
    else:
        top_left = raw[:, :2] + (cells + np.float32(0.5)) * strides
    return np.concatenate([top_left, top_left + sizes], axis=1)


@lru_cache(maxsize=1)
def _grid(height: int, width: int, levels: tuple[int, ...]) -> tuple[Floats, Floats]:
    """The cells (A, 2) as column and row, and their strides (A, 1)."""
    cells, strides = [], []
    for stride in levels:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        strides.append(np.full((rows.size, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _hard_nms(boxes: Floats, class_ids: NDArray[np.intp]) -> list[int]:
    """The rows of (K, 4) corners to keep, best first; only boxes of one class compete."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    remaining = np.arange(len(boxes))
    kept: list[int] = []
    while remaining.size:
        first, others = remaining[0], remaining[1:]
        kept.append(int(first))
        top_left = np.maximum(boxes[first, :2], boxes[others, :2])
        bottom_right = np.minimum(boxes[first, 2:], boxes[others, 2:])
        shared = np.prod(np.maximum(bottom_right - top_left, 0), axis=1)
        overlaps = shared / (areas[first] + areas[others] - shared)
        is_rival = class_ids[others] == class_ids[first]
        remaining = others[~(is_rival & (overlaps > IOU))]
    return kept


def _answer(boxes: Floats, scores: Floats, class_ids: NDArray[np.intp]) -> OfficialAnswer:
    rows = zip(class_ids.tolist(), scores.tolist(), boxes.tolist(), strict=True)
    return OfficialAnswer(
        [
            OfficialBox(class_id, score, (x1, y1, x2, y2))
            for class_id, score, (x1, y1, x2, y2) in rows
        ]
    )
