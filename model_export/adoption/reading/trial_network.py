"""Run a graph of any outputs on pictures, with its pixels made in any way."""

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model_export.errors import ModelExportError
from model_export.graphs.network import ImageInput, image_input, open_session
from model_export.graphs.pixel_values import Images, PixelValues

# Differences up to which two runs of one picture are alike: sums may be in another order.
STEADY: Final = 1e-3

# Output name -> the values for one image: a batch axis, if there is one, has length 1.
Outputs = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class TrialNetwork:
    """A graph that has one image input and any outputs.

    Attributes:
        session: The loaded graph.
        image: Its input.
        height: Height in pixels of the images it is run on.
        width: Width in pixels of the images it is run on.

    A tensor is run once: its outputs are kept.
    """

    session: onnxruntime.InferenceSession
    image: ImageInput
    height: int
    width: int
    _known: dict[bytes, Outputs] = field(default_factory=dict, repr=False, compare=False)

    @property
    def runs(self) -> int:
        """How many tensors have been run."""
        return len(self._known)

    def run(self, picture: NDArray[np.uint8], values: PixelValues) -> Outputs:
        """Run one picture, (H, W, 3) uint8 BGR; it fills a batch of fixed size.

        Raises:
            ModelExportError: The graph fails.
        """
        images: Images = picture[np.newaxis]
        return self.run_tensor(values.of(images, self.image))

    def run_tensor(self, tensor: NDArray[Any]) -> Outputs:
        """Run the input tensor of one picture, as `PixelValues.of` makes it.

        Raises:
            ModelExportError: The graph fails.
        """
        key = hashlib.sha256(tensor.tobytes()).digest()
        if key not in self._known:
            self._known[key] = self._run(tensor)
        return self._known[key]

    def is_steady(self, picture: NDArray[np.uint8]) -> bool:
        """Whether a picture, (H, W, 3) uint8 BGR, gives about the same outputs each time.

        Raises:
            ModelExportError: The graph fails.
        """
        tensor = PixelValues().of(picture[np.newaxis], self.image)
        first, second = self.run_tensor(tensor), self._run(tensor)
        return all(
            np.allclose(first[name], second[name], rtol=STEADY, atol=STEADY, equal_nan=True)
            for name in first
        )

    def _run(self, tensor: NDArray[Any]) -> Outputs:
        count = self.image.batch or 1
        tensor = np.repeat(tensor, count, axis=0)
        try:
            found = self.session.run(None, {self.image.name: tensor})
        except Exception as error:  # onnxruntime's errors share no other base class
            raise ModelExportError(f"the model fails on {tensor.shape}: {error}") from error
        outputs = self.session.get_outputs()
        for output, value in zip(outputs, found, strict=True):
            if not isinstance(value, np.ndarray):
                raise ModelExportError(
                    f"the output {output.name} is {output.type}, not a tensor; export the model so "
                    "that each output is one tensor"
                )
        return {
            output.name: _one_image(value, count)
            for output, value in zip(outputs, found, strict=True)
        }


def open_trial(serialised: bytes, size: tuple[int, int]) -> TrialNetwork:
    """Load a graph to run it on images of one size, (height, width) in pixels."""
    session = open_session(serialised)
    return TrialNetwork(session, image_input(session), *size)


def _one_image(value: NDArray[Any], count: int) -> NDArray[np.float32]:
    first = value[:1] if count > 1 and value.ndim and value.shape[0] == count else value
    return first.astype(np.float32)
