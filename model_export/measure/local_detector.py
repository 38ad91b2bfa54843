"""An ONNX file or a checkpoint as a detector to measure, with the server's own arithmetic."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model_export.data.image_files import decode_image
from model_export.errors import ModelExportError
from model_export.measure.evaluate import Found
from model_export.model.variants import HeadKind, Variant
from service.core.contract import ContractError, ModelContract
from service.core.input_tensor import pack_images
from service.core.letterbox import Letterbox, LetterboxMode, fit_to_model
from service.core.postprocess import find_objects
from service.core.suppress import DetectionOptions

if TYPE_CHECKING:
    from torch import nn

# (N, H, W, 3) uint8 BGR network input to (N, A, 4 + 1 + C) raw rows.
Network = Callable[[NDArray[np.uint8]], NDArray[np.floating]]


class LocalDetector:
    """Decodes, letterboxes, runs the network and suppresses in this process, as the server does.

    Args:
        network: The network; called from several threads at once.
        contract: The network's inputs and outputs.
        options: Thresholds and suppression.
        mode: How images are fitted into the input; by default as by a server on a CPU.
    """

    def __init__(
        self,
        network: Network,
        contract: ModelContract,
        options: DetectionOptions,
        mode: LetterboxMode | None = None,
    ) -> None:
        self._network = network
        self._contract = contract
        self._options = options
        self._mode = mode or ("rectangle" if contract.input.dynamic_size else "square")

    def class_names(self) -> tuple[str, ...]:
        """The names of the model's classes."""
        return self._contract.class_names

    def detect(self, image: bytes) -> Sequence[Found]:
        """Find objects in one image file.

        Raises:
            ModelExportError: The image cannot be decoded.
        """
        spec = self._contract.input
        photo = decode_image(image, (spec.height, spec.width))
        size = photo.height, photo.width
        canvas, way_back = fit_to_model(photo.pixels, self._contract, self._mode, size)
        raw = self._network(canvas[np.newaxis])[0]
        return named_objects(raw, way_back, self._contract, self._options)


def named_objects(
    raw: NDArray[np.floating],
    way_back: Letterbox,
    contract: ModelContract,
    options: DetectionOptions,
) -> list[Found]:
    """The detections in (A, 4 + 1 + C) raw rows, with boxes in image pixels."""
    found = find_objects(raw, way_back, contract, options)
    rows = zip(found.class_ids, found.scores.tolist(), found.boxes_xyxy.tolist(), strict=True)
    return [
        Found(contract.class_names[class_id], score, (box[0], box[1], box[2], box[3]))
        for class_id, score, box in rows
    ]


def onnx_detector(
    path: Path, options: DetectionOptions, mode: LetterboxMode | None = None
) -> LocalDetector:
    """A detector from an ONNX file with a contract.

    Raises:
        ModelExportError: The file cannot be loaded, or carries no contract.
    """
    network, contract = load_onnx(path)
    return LocalDetector(network, contract, options, mode)


def load_onnx(path: Path) -> tuple[Network, ModelContract]:
    """The network of an ONNX file and the contract that it carries.

    Raises:
        ModelExportError: The file cannot be loaded, or carries no contract.
    """
    # Only here, so that checkpoints need no onnxruntime, and ONNX files no torch.
    from model_export.graphs.network import load_network  # noqa: PLC0415

    loaded = load_network(path, (0.0, 255.0))
    try:
        contract = ModelContract.from_metadata(loaded.metadata)
    except ContractError as error:
        raise ModelExportError(f"{path}: {error}; `adopt` writes a copy with one") from error
    session, spec = loaded.session, contract.input

    def network(images: NDArray[np.uint8]) -> NDArray[np.floating]:
        images = np.repeat(images, spec.batch or 1, axis=0)
        return np.asarray(session.run(None, {spec.name: pack_images(images, spec)})[0])

    return network, contract


def checkpoint_detector(
    weights: Path,
    variant: Variant,
    head: HeadKind,
    contract: ModelContract,
    options: DetectionOptions,
    mode: LetterboxMode | None = None,
) -> LocalDetector:
    """A detector from PyTorch weights, run on the CPU in float32.

    Args:
        weights: A checkpoint, or a BN-folded .npz.
        variant: The variant that the weights belong to.
        head: The head that they belong to.
        contract: Class names, size and box coding; the scores are logits.
        options: Thresholds and suppression.
        mode: How images are fitted into the input.

    Raises:
        ModelExportError: The weights cannot be read, or belong to another network.
    """
    from model_export.model.checkpoint import load_weights  # noqa: PLC0415
    from model_export.model.yolox import build  # noqa: PLC0415

    model = build(variant, contract.num_classes, head).eval()
    load_weights(model, weights)
    return LocalDetector(torch_network(model), contract, options, mode)


def torch_network(model: "nn.Module") -> Network:
    """A model in evaluation mode as a network, on whatever device it is."""
    import torch  # noqa: PLC0415

    device = next(model.parameters()).device

    def network(images: NDArray[np.uint8]) -> NDArray[np.floating]:
        with torch.inference_mode():
            pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()
            rows: NDArray[np.floating] = model(pixels).cpu().numpy()
        return rows

    return network
