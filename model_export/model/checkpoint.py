"""Load weights from released checkpoints, the project's own checkpoints and NumPy archives."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model_export.errors import ModelExportError
from model_export.model.variants import HEAD_KINDS, VARIANTS, HeadKind
from model_export.model.yolox import build

Shapes = dict[str, tuple[int, ...]]


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a model with the weights of a file; every name and shape must fit.

    Raises:
        ModelExportError: The file cannot be read, or its weights are those of another model; the
            model is then unchanged.
    """
    state = read_state_dict(path)
    expected, found = shapes_of(model.state_dict()), shapes_of(state)
    if found != expected:
        reason = difference_in_kind(expected, found) or difference_in_names(expected, found)
        raise ModelExportError(f"{path} does not fit the model: {reason}")
    model.load_state_dict(state)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read weights on the CPU: name -> tensor.

    A `.npz` archive holds one array per name. Any other file is read as a PyTorch checkpoint: a
    state_dict, or a dictionary with a state_dict under `model`, like those of the YOLOX release.

    Raises:
        ModelExportError: The file cannot be read, or does not contain a state_dict.
    """
    try:
        content = _read_archive(path) if path.suffix == ".npz" else _read_checkpoint(path)
    except pickle.UnpicklingError as error:
        raise ModelExportError(
            f"{path} is not a checkpoint, or it holds more than tensors and plain values; "
            "save only its state_dict"
        ) from error
    except Exception as error:  # a damaged file makes torch and NumPy raise almost anything
        raise ModelExportError(f"cannot read weights from {path}: {error}") from error
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not _is_state_dict(state):
        raise ModelExportError(
            f"{path} holds no state_dict (name -> tensor), neither directly nor as `model`"
        )
    return state


def shapes_of(state: Mapping[str, Tensor]) -> Shapes:
    """Name -> shape."""
    return {name: tuple(value.shape) for name, value in state.items()}


def class_count(shapes: Shapes, head: HeadKind) -> int:
    """C according to the last layer of a head of this kind; 0 if there is no such layer."""
    name, others = (
        ("head.preds.0.weight", 5) if head == "coupled" else ("head.cls_preds.0.weight", 0)
    )
    return max(0, (*shapes.get(name, ()), 0)[0] - others)


def difference_in_kind(expected: Shapes, found: Shapes) -> str | None:
    """Name the variants that the found and the expected weights belong to, if both are known."""
    wanted, given = _identify(expected), _identify(found)
    if not (wanted and given):
        return None
    return f"it holds {given}, but the model is {wanted}"


def difference_in_names(expected: Shapes, found: Shapes) -> str:
    """List the names that are missing, unknown or of another shape."""
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    reshaped = [
        f"{name} {found[name]} instead of {expected[name]}"
        for name in expected
        if name in found and found[name] != expected[name]
    ]
    problems = {"missing": missing, "unknown": unknown, "of another shape": reshaped}
    return "; ".join(f"{_some(names)} {what}" for what, names in problems.items() if names)


def _read_archive(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def _read_checkpoint(path: Path) -> object:
    """Load a PyTorch file; NumPy scalars are allowed, as the release's trainer saves its AP so."""
    make_scalar: Any = np.float64(0).__reduce__()[0]
    allowed: list[Any] = [
        np.dtype,
        type(np.dtype(np.float64)),
        (make_scalar, "numpy.core.multiarray.scalar"),
        (make_scalar, "numpy._core.multiarray.scalar"),
    ]
    with torch.serialization.safe_globals(allowed):
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    return content


def _is_state_dict(content: Mapping[object, object]) -> bool:
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())


def _some(names: list[str], limit: int = 3) -> str:
    listed = ", ".join(names[:limit])
    return f"{len(names)} names ({listed}{', ...' if len(names) > limit else ''})"


def _identify(shapes: Shapes) -> str | None:
    """The variant, head and number of classes that have exactly these shapes."""
    for head in HEAD_KINDS:
        num_classes = class_count(shapes, head)
        for variant in VARIANTS if num_classes else ():
            with torch.device("meta"):
                candidate = build(variant, num_classes, head)
            if shapes_of(candidate.state_dict()) == shapes:
                return f"yolox-{variant} with a {head} head and {num_classes} classes"
    return None
