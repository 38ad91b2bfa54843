"""The outputs: what was found in the images of a request, as tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import MalformedRequestError
from service.http.formats import Layout, in_form
from service.http.inference_protocol.calls.tensors import Datatype, Tensor
from service.pipeline.stages import DetectedImage

# An image with fewer boxes than another of its request is filled up with these.
NO_CLASS: Final = -1


@dataclass(frozen=True, slots=True)
class Found:
    """The detections in the N images of a request.

    Attributes:
        images: The images.
        class_names: A name for each class id.
        layout: The form of the boxes.
    """

    images: Sequence[DetectedImage]
    class_names: tuple[str, ...]
    layout: Layout

    def filled(self, each: Sequence[NDArray[Any]], fill: object, dtype: str) -> NDArray[Any]:
        """One array from those of all images, filled up to the length of the longest."""
        longest = max(len(values) for values in each)
        whole = np.full((len(each), longest, *each[0].shape[1:]), fill, dtype)
        for at, values in enumerate(each):
            whole[at, : len(values)] = values
        return whole

    def boxes(self) -> NDArray[Any]:
        """(N, M, 4) float32, in pixels of the upright image unless asked for otherwise."""
        return self.filled([in_form(image, self.layout) for image in self.images], 0, "f4")

    def names(self) -> NDArray[Any]:
        """(N, M) names of classes, as bytes."""
        known = np.array([name.encode() for name in self.class_names], object)
        ids = [image.detections.class_ids for image in self.images]
        return self.filled([known[each] for each in ids], b"", "O")

    def rows(self) -> NDArray[Any]:
        """(N, A, 4 + 1 + C) float32, the network's raw output.

        Raises:
            MalformedRequestError: The images were fitted into network inputs of different sizes.
        """
        rows = [image.rows for image in self.images if image.rows is not None]
        if len({each.shape for each in rows}) > 1:
            raise MalformedRequestError(
                "output rows: images of these shapes have different numbers of rows; send one "
                "image a request, or start the server with letterbox=square"
            )
        return np.stack(rows)


@dataclass(frozen=True, slots=True)
class Output:
    """An output of every model.

    Attributes:
        datatype: The type of its elements.
        shape: The length of each axis, -1 where it varies.
        values: Gives the elements.
        always: Whether it is part of an answer to a request that asks for no output by name.
    """

    datatype: Datatype
    shape: tuple[int, ...]
    values: Callable[[Found], NDArray[Any]]
    always: bool = True


def _num_detections(found: Found) -> NDArray[Any]:
    return np.array([len(image.detections) for image in found.images], np.int64)


def _scores(found: Found) -> NDArray[Any]:
    return found.filled([image.detections.scores for image in found.images], 0, "f4")


def _objectness(found: Found) -> NDArray[Any]:
    return found.filled([image.detections.objectness for image in found.images], 0, "f4")


def _class_scores(found: Found) -> NDArray[Any]:
    return found.filled([image.detections.class_scores for image in found.images], 0, "f4")


def _class_ids(found: Found) -> NDArray[Any]:
    return found.filled([image.detections.class_ids for image in found.images], NO_CLASS, "i8")


def _image_sizes(found: Found) -> NDArray[Any]:
    return np.array([(image.height, image.width) for image in found.images], np.int64)


def _letterboxes(found: Found) -> NDArray[Any]:
    boxes = [image.letterbox for image in found.images]
    return np.array([(b.ratio, b.network_height, b.network_width) for b in boxes], np.float32)


OUTPUTS: Final[dict[str, Output]] = {
    "num_detections": Output("INT64", (-1,), _num_detections),
    "boxes": Output("FP32", (-1, -1, 4), Found.boxes),
    "scores": Output("FP32", (-1, -1), _scores),
    "objectness": Output("FP32", (-1, -1), _objectness),
    "class_scores": Output("FP32", (-1, -1), _class_scores),
    "class_ids": Output("INT64", (-1, -1), _class_ids),
    "class_names": Output("BYTES", (-1, -1), Found.names),
    "image_sizes": Output("INT64", (-1, 2), _image_sizes),
    "rows": Output("FP32", (-1, -1, -1), Found.rows, always=False),
    "letterboxes": Output("FP32", (-1, 3), _letterboxes, always=False),
}
DEFAULT_OUTPUTS: Final = tuple(name for name, output in OUTPUTS.items() if output.always)


def tensors(found: Found, names: Sequence[str]) -> list[Tensor]:
    """The outputs of these names.

    Raises:
        MalformedRequestError: The images have no rows that fit into one tensor.
    """
    chosen = ((name, OUTPUTS[name]) for name in names)
    return [Tensor(name, output.datatype, output.values(found)) for name, output in chosen]
