"""Load and run a third-party ONNX detector on the CPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model_export.errors import ModelExportError
from service.core.contract import InputDtype, InputSpec, Layout
from service.core.input_tensor import pack_images

Images = NDArray[np.uint8]
Rows = NDArray[np.floating[Any]]

INPUT_DTYPES: Final[dict[str, InputDtype]] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
}


@dataclass(frozen=True, slots=True)
class ImageInput:
    """The image tensor that a graph declares; an axis of any length is None."""

    name: str
    layout: Layout
    dtype: InputDtype
    batch: int | None
    height: int | None
    width: int | None


@dataclass(frozen=True, slots=True)
class OnnxNetwork:
    """A graph with one image tensor in and one float tensor out, ready to run on the CPU.

    Attributes:
        session: The loaded graph.
        image: The input that the graph declares.
        value_range: The values that the graph takes for pixel values 0 and 255.
    """

    session: onnxruntime.InferenceSession
    image: ImageInput
    value_range: tuple[float, float]

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata properties of the file."""
        return dict(self.session.get_modelmeta().custom_metadata_map)

    def run(self, images: Images) -> Rows:
        """Run (N, H, W, 3) uint8 images as one batch.

        Returns:
            The output, unchecked; a YOLOX detector gives (N, A, 5 + C).

        Raises:
            ModelExportError: The graph fails on these images.
        """
        height, width = images.shape[1:3]
        image = self.image
        tensor = pack_images(
            images,
            InputSpec(
                image.name,
                height,
                width,
                layout=image.layout,
                dtype=image.dtype,
                value_range=self.value_range,
            ),
        )
        try:
            (output,) = self.session.run(None, {image.name: tensor})
        except Exception as error:  # onnxruntime's errors share no other base class
            raise ModelExportError(f"the model fails on {tensor.shape}: {error}") from error
        return np.asarray(output)

    def run_singly(self, images: Images) -> Rows:
        """Run images one by one; each is repeated to fill a batch of fixed size."""
        repeats = self.image.batch or 1
        return np.concatenate([self.run(np.stack([image] * repeats))[:1] for image in images])


def load_network(model: Path | bytes, value_range: tuple[float, float]) -> OnnxNetwork:
    """Load a file or a serialised model.

    Raises:
        ModelExportError: The model cannot be loaded, or its input or output is not that of a YOLOX
            detector.
    """
    session = open_session(model)
    _check_output(session)
    return OnnxNetwork(session, image_input(session), value_range)


def open_session(model: Path | bytes) -> onnxruntime.InferenceSession:
    """Load a file or a serialised model of any inputs and outputs, to run it on the CPU.

    Raises:
        ModelExportError: onnxruntime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    # Log only fatal messages: errors are raised below.
    options.log_severity_level = 4
    # Threads that spin for work are a little faster, and burn the CPU of everybody else.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no other base class
        raise ModelExportError(f"onnxruntime cannot load the model: {error}") from error


def _check_output(session: onnxruntime.InferenceSession) -> None:
    outputs = session.get_outputs()
    if len(outputs) != 1:
        found = ", ".join(f"{output.name} {output.shape}" for output in outputs)
        raise ModelExportError(
            f"the model has {len(outputs)} outputs ({found}); re-export it with the levels "
            "joined into one tensor (N, A, 5 + C)"
        )
    if outputs[0].type not in {"tensor(float)", "tensor(float16)"}:
        raise ModelExportError(f"the output is {outputs[0].type}, not float or float16")


def image_input(session: onnxruntime.InferenceSession) -> ImageInput:
    """Read the one image tensor that a graph declares.

    A graph that leaves all four axes open is taken for (N, 3, H, W).

    Raises:
        ModelExportError: The graph has another number of inputs, or the one is no image.
    """
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(tensor.name for tensor in inputs)
        raise ModelExportError(f"the model has {len(inputs)} inputs ({names}); it must have one")
    (tensor,) = inputs
    if tensor.type not in INPUT_DTYPES:
        raise ModelExportError(
            f"the input is {tensor.type}; export the model with an input of float, float16 or uint8"
        )
    axes = [size if isinstance(size, int) else None for size in tensor.shape]
    if len(axes) != 4 or (3 not in (axes[1], axes[3]) and axes.count(None) < 3):
        raise ModelExportError(
            f"the input has shape {tensor.shape}; it must be (N, 3, H, W) or (N, H, W, 3)"
        )
    layout: Layout = "NHWC" if axes[3] == 3 and axes[1] != 3 else "NCHW"
    batch, *_ = axes
    height, width = axes[2:] if layout == "NCHW" else axes[1:3]
    return ImageInput(tensor.name, layout, INPUT_DTYPES[tensor.type], batch, height, width)
