"""The pipeline that users copy: YOLOX's own pre- and postprocessing, in OpenCV and numpy.

Every peer serves this one, so that the frameworks differ and their boxes do not. It needs nothing
of this project, and runs in the environment of a peer.
"""

import json
import os
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
PAD_VALUE: Final = 114
STRIDES: Final = (8, 16, 32)


@dataclass(frozen=True, slots=True)
class OfficialBox:
    """One detection; the box is x1, y1, x2, y2 in image pixels."""

    class_id: int
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class OfficialAnswer:
    """What a peer answers for one image; the frameworks write it as a JSON object."""

    detections: list[OfficialBox]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A letterboxed image.

    Attributes:
        tensor: (3, H, W) float32, BGR, 0 to 255.
        ratio: Network pixels per image pixel.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
    """

    tensor: Floats
    ratio: float
    width: int
    height: int


class OfficialDetector:
    """A YOLOX file in ONNX Runtime with the pipeline round it.

    Args:
        path: The model: (N, 3, H, W) float32 in, scores already probabilities.
        height: Network height in pixels.
        width: Network width in pixels.
        threads: Threads of one call.
    """

    def __init__(self, path: Path, *, height: int, width: int, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._input_name: str = self._session.get_inputs()[0].name
        self._height, self._width = height, width
        # As in the network: several workers would otherwise each take all the CPUs.
        cv2.setNumThreads(threads)

    def prepare(self, content: bytes) -> Prepared:
        """Decode an image file, and fit it into the network's input, top-left.

        Raises:
            ValueError: The image cannot be decoded.
        """
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError("the image cannot be decoded")
        height, width = image.shape[:2]
        ratio = min(self._height / height, self._width / width)
        fit_height, fit_width = int(height * ratio), int(width * ratio)
        canvas = np.full((self._height, self._width, 3), PAD_VALUE, np.uint8)
        canvas[:fit_height, :fit_width] = cv2.resize(
            image, (fit_width, fit_height), interpolation=cv2.INTER_LINEAR
        )
        tensor = np.ascontiguousarray(canvas.transpose(2, 0, 1), dtype=np.float32)
        return Prepared(tensor, ratio, width, height)

    def infer(self, tensors: list[Floats]) -> Floats:
        """Run a batch of (3, H, W) tensors; gives (N, A, 5 + C) raw rows."""
        rows = self._session.run(None, {self._input_name: np.stack(tensors)})[0]
        return np.asarray(rows, dtype=np.float32)

    def finish(self, rows: Floats, prepared: Prepared) -> OfficialAnswer:
        """Decode the (A, 5 + C) rows of one image, filter and suppress them."""
        cells, strides = _grid(self._height, self._width)
        centres = (rows[:, :2] + cells) * strides
        halves = np.exp(rows[:, 2:4]) * strides / 2
        boxes = np.concatenate([centres - halves, centres + halves], axis=1)
        scores = rows[:, 4:5] * rows[:, 5:]
        class_ids = scores.argmax(axis=1)
        best = scores[np.arange(len(scores)), class_ids]
        confident = np.flatnonzero(best >= CONFIDENCE)
        confident = confident[np.argsort(-best[confident], kind="stable")]
        kept = confident[_hard_nms(boxes[confident], class_ids[confident])]
        limits = np.array([prepared.width, prepared.height] * 2, np.float32)
        boxes = np.clip(boxes[kept] / np.float32(prepared.ratio), 0, limits)
        return _answer(boxes, best[kept], class_ids[kept])

    def detect(self, contents: list[bytes]) -> list[OfficialAnswer]:
        """What is found in some image files, run as one batch.

        Raises:
            ValueError: One of the images cannot be decoded.
        """
        return self.detect_prepared([self.prepare(content) for content in contents])

    def detect_prepared(self, batch: list[Prepared]) -> list[OfficialAnswer]:
        """The same from images that are prepared already."""
        rows = self.infer([prepared.tensor for prepared in batch])
        return [self.finish(rows[i], prepared) for i, prepared in enumerate(batch)]


def from_environment() -> OfficialDetector:
    """The detector that a peer is to serve; it is warm."""
    detector = OfficialDetector(
        Path(os.environ["PEER_MODEL"]),
        height=int(os.environ["PEER_HEIGHT"]),
        width=int(os.environ["PEER_WIDTH"]),
        threads=int(os.environ["PEER_THREADS"]),
    )
    blank = np.zeros((64, 64, 3), np.uint8)
    detector.detect([cv2.imencode(".jpg", blank)[1].tobytes()])
    return detector


def port() -> int:
    """Where a peer is to listen."""
    return int(os.environ["PEER_PORT"])


def workers() -> int:
    """How many workers a peer is to have."""
    return int(os.environ["PEER_WORKERS"])


def to_json(answer: OfficialAnswer) -> bytes:
    """The body of an answer, for frameworks that leave that to the user."""
    return json.dumps(asdict(answer)).encode()


@lru_cache(maxsize=1)
def _grid(height: int, width: int) -> tuple[Floats, Floats]:
    """The cells (A, 2) as column and row, and their strides (A, 1)."""
    cells, strides = [], []
    for stride in STRIDES:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        strides.append(np.full((rows.size, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _hard_nms(boxes: Floats, class_ids: NDArray[np.intp]) -> list[int]:
    """Rows to keep of (K, 4) corners, best first; only boxes of one class compete."""
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
