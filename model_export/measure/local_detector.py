"""An ONNX file or a checkpoint as a detector to measure, through the service's own arithmetic."""

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
from service.core.letterbox import LetterboxMode, fit_to_model
from service.core.postprocess import find_objects
from service.core.suppress import DetectionOptions

if TYPE_CHECKING:
    from torch import nn

# (1, H, W, 3) uint8 BGR network input to (1, A, 4 + 1 + C) raw rows.
Network = Callable[[NDArray[np.uint8]], NDArray[np.floating]]


class LocalDetector:
    """Letterbox, network, decode and suppression in this process.

    Args:
        network: The network; called from several threads at once.
        contract: What it takes and gives.
        options: Thresholds and suppression.
        mode: How images are fitted into the input; by default as a server on a CPU does it.
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
        """What the model finds in one image file.

        Raises:
            ModelExportError: The image cannot be decoded.
        """
        spec = self._contract.input
        photo = decode_image(image, (spec.height, spec.width))
        size = photo.height, photo.width
        canvas, way_back = fit_to_model(photo.pixels, self._contract, self._mode, size)
        raw = self._network(canvas[np.newaxis])[0]
        found = find_objects(raw, way_back, self._contract, self._options)
        rows = zip(found.class_ids, found.scores.tolist(), found.boxes_xyxy.tolist(), strict=True)
        names = self._contract.class_names
        return [
            Found(names[class_id], score, (box[0], box[1], box[2], box[3]))
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
    # Only here, so that a checkpoint needs no onnxruntime, and a file no torch.
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
        variant: The network that the weights are of.
        head: Its head.
        contract: Class names, size and box coding; the scores are logits.
        options: Thresholds and suppression.
        mode: How images are fitted into the input.

    Raises:
        ModelExportError: The weights cannot be read, or are of another network.
    """
    from model_export.model.checkpoint import load_weights  # noqa: PLC0415
    from model_export.model.yolox import build  # noqa: PLC0415

    model = build(variant, contract.num_classes, head).eval()
    load_weights(model, weights)
    return LocalDetector(torch_network(model), contract, options, mode)


def torch_network(model: "nn.Module") -> Network:
    """A model in evaluation mode as a network, on whichever device it is."""
    import torch  # noqa: PLC0415

    device = next(model.parameters()).device

    def network(images: NDArray[np.uint8]) -> NDArray[np.floating]:
        with torch.inference_mode():
            pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()
            rows: NDArray[np.floating] = model(pixels).cpu().numpy()
        return rows

    return network
