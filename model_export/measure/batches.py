"""Running a network on many image files, in batches of the images that fill the same input."""

import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from model_export.data.image_files import decode_image
from model_export.errors import ModelExportError
from model_export.measure.local_detector import Network
from service.core.contract import ModelContract
from service.core.letterbox import Letterbox, LetterboxMode, fit_to_model

# Images of a batch: more gain nothing on a CPU, and little on a GPU.
BATCH: Final = 8
# Images that are decoded ahead of the network.
AHEAD: Final = 2 * BATCH

Item = TypeVar("Item")
Result = TypeVar("Result")


class ImageRows(NamedTuple):
    """The network's output for one image.

    Attributes:
        number: Which image, from 0.
        raw: (A, 4 + 1 + C) raw rows.
        way_back: From the network's input to the image.
    """

    number: int
    raw: NDArray[np.floating]
    way_back: Letterbox


class _Input(NamedTuple):
    number: int
    canvas: NDArray[np.uint8]
    way_back: Letterbox


@dataclass(frozen=True, slots=True)
class ImageBatches:
    """Image files as batches for a network; threads decode ahead of it.

    Attributes:
        paths: The image files.
        contract: The network's input.
        batch_size: Images of a batch, at most.
    """

    paths: Sequence[Path]
    contract: ModelContract
    batch_size: int = BATCH

    def run(self, network: Network) -> Iterator[ImageRows]:
        """The rows of every image, in the order in which the batches fill up.

        Raises:
            ModelExportError: An image cannot be read; the message names it.
        """
        waiting: dict[tuple[int, ...], list[_Input]] = defaultdict(list)
        for item in self._inputs():
            alike = waiting[item.canvas.shape]
            alike.append(item)
            if len(alike) == self.batch_size:
                yield from _rows(network, alike)
                alike.clear()
        for alike in waiting.values():
            if alike:
                yield from _rows(network, alike)

    def _inputs(self) -> Iterator[_Input]:
        """The letterboxed images, in the order of the files."""
        return in_threads(self._read, range(len(self.paths)))

    def _read(self, number: int) -> _Input:
        path, spec = self.paths[number], self.contract.input
        try:
            photo = decode_image(path.read_bytes(), (spec.height, spec.width))
        except (OSError, ModelExportError) as error:
            raise ModelExportError(f"{path}: {error}") from error
        mode: LetterboxMode = "rectangle" if spec.dynamic_size else "square"
        size = photo.height, photo.width
        return _Input(number, *fit_to_model(photo.pixels, self.contract, mode, size))


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map` in as many threads as there are cores, at most `AHEAD` items ahead of the results."""
    coming: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        try:
            for item in items:
                coming.append(threads.submit(function, item))
                if len(coming) == AHEAD:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()


def _rows(network: Network, inputs: Sequence[_Input]) -> Iterator[ImageRows]:
    raw = network(np.stack([each.canvas for each in inputs]))
    for rows, each in zip(raw, inputs, strict=True):
        yield ImageRows(each.number, rows, each.way_back)
