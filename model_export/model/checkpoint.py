"""Load weights from released checkpoints, the project's own checkpoints and NumPy archives."""

import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from model_export.errors import ModelExportError
from model_export.model.variants import HEAD_KINDS, VARIANTS, HeadKind, Variant
from model_export.model.yolox import build

Shapes = dict[str, tuple[int, ...]]
# Where checkpoints keep their state_dict, averaged weights first.
HOLDERS: Final = ("ema", "ema_state_dict", "model", "state_dict", "model_state_dict", "module")
# Tensors that every head has; what is before them in a name, such as `module.` or `_orig_mod.`, was
# put there by the tool that trained.
LANDMARKS: Final = ("head.stems.0.conv.weight", "head.obj_preds.0.weight", "head.preds.0.weight")
COUNTER: Final = ".num_batches_tracked"


def load_weights(model: nn.Module, path: Path) -> tuple[str, ...]:
    """Fill a model with the weights of a file; every name and shape of the model must be there.

    Returns:
        The names in the file that the model has no place for; they are left out.

    Raises:
        ModelExportError: The file cannot be read, or its weights are those of another model; the
            model is then unchanged.
    """
    state, own = read_state_dict(path), model.state_dict()
    # A counter that only training uses, and that some files lack.
    counters = {name: value for name, value in own.items() if name.endswith(COUNTER)}
    state = counters | state
    expected, found = shapes_of(own), shapes_of(state)
    if any(found.get(name) != shape for name, shape in expected.items()):
        reason = difference_in_kind(expected, found) or difference_in_names(expected, found)
        raise ModelExportError(f"{path} does not fit the model: {reason}")
    if broken := [name for name in own if not bool(state[name].isfinite().all())]:
        raise ModelExportError(
            f"{path} holds numbers that are not finite, in {_some(broken)}: its training failed; "
            "take an earlier checkpoint"
        )
    model.load_state_dict({name: state[name] for name in own})
    return tuple(name for name in state if name not in own)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read weights on the CPU: name -> tensor.

    A `.npz` archive holds one array per name, a `.safetensors` file one tensor, and an `.onnx` file
    what `export` wrote, with folded batch norms. Any other file is read as a PyTorch checkpoint: a
    state_dict, or a dictionary that has one under a usual name, such as `model` in the YOLOX
    release's; averaged weights (`ema`) come first. Prefixes of training tools, such as `module.`,
    `model.` or `_orig_mod.`, are removed.

    Raises:
        ModelExportError: The file cannot be read, or does not contain a state_dict.
    """
    try:
        content = READERS.get(path.suffix, _read_checkpoint)(path)
    except pickle.UnpicklingError as error:
        raise ModelExportError(
            f"{path} is not a checkpoint, or it holds more than tensors and plain values; "
            "save only its state_dict"
        ) from error
    except ImportError as error:
        raise ModelExportError(f"cannot read weights from {path}: {error}") from error
    except Exception as error:  # a damaged file makes torch and NumPy raise almost anything
        why = error.strerror if isinstance(error, OSError) else None
        why = why or "the file is damaged or was cut short; copy it again"
        raise ModelExportError(f"cannot read weights from {path}: {why}") from error
    state = _state_dict(content)
    if not state:
        raise ModelExportError(
            f"{path} holds no state_dict (name -> tensor), neither directly nor as "
            f"{', '.join(f'`{key}`' for key in HOLDERS)}"
        )
    return _without_prefix(state)


def _state_dict(content: object) -> dict[str, Tensor]:
    """The tensors of a checkpoint, from where its maker put them; empty if there are none."""
    if not isinstance(content, dict):
        return {}
    for key in HOLDERS:
        inner = _state_dict(content.get(key))
        if inner:
            return inner
    return {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove what training tools put before names; of several copies, averaged weights are kept."""
    found = {
        name.removesuffix(landmark)
        for name in state
        for landmark in LANDMARKS
        if name.endswith(landmark)
    }
    prefix = min(found, key=lambda each: ("ema" not in each, each), default="")
    inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return {k: v for k, v in state.items() if not k.startswith(prefix)} | inner


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
    wanted, given = identify(expected), identify(found)
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


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file  # noqa: PLC0415 - needed for such files only

    return load_file(path)


def _read_onnx(path: Path) -> dict[str, Tensor]:
    from model_export.model.exported import read_exported  # noqa: PLC0415 - for such files only

    weights = {name: torch.from_numpy(values) for name, values in read_exported(path).items()}
    # Counters that only training uses.
    counters = [name for name in weights if name.endswith(".bn.running_var")]
    return weights | {
        name.removesuffix(".running_var") + COUNTER: torch.zeros((), dtype=torch.int64)
        for name in counters
    }


def _read_checkpoint(path: Path) -> object:
    """Load a PyTorch file; NumPy scalars are allowed, as the release's trainer saves its AP so."""
    make_scalar: Any = np.float64(0).__reduce__()[0]
    allowed: list[Any] = [
        np.dtype,
        type(np.dtype(np.float64)),
        (make_scalar, "numpy.core.multiarray.scalar"),
        (make_scalar, "numpy._core.multiarray.scalar"),
    ]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():  # PyTorch itself compares no checksums
                raise ValueError
    with torch.serialization.safe_globals(allowed):
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    return content


def _some(names: list[str], limit: int = 3) -> str:
    listed = ", ".join(names[:limit])
    return f"{len(names)} names ({listed}{', ...' if len(names) > limit else ''})"


@dataclass(frozen=True, slots=True)
class Kind:
    """A variant, its head and its number of classes."""

    variant: Variant
    head: HeadKind
    num_classes: int

    def __str__(self) -> str:
        return f"yolox-{self.variant} with a {self.head} head and {self.num_classes} classes"


def identify(shapes: Shapes) -> Kind | None:
    """The variant, head and number of classes that have exactly these shapes.

    Args:
        shapes: Name -> shape; counters may lack, and names that no model has are ignored.
    """
    for head in HEAD_KINDS:
        num_classes = class_count(shapes, head)
        for variant in VARIANTS if num_classes else ():
            with torch.device("meta"):
                candidate = build(variant, num_classes, head)
            wanted = shapes_of(candidate.state_dict())
            if all(
                shapes.get(name) == shape or (name.endswith(COUNTER) and name not in shapes)
                for name, shape in wanted.items()
            ):
                return Kind(variant, head, num_classes)
    return None


# How each kind of file is read, by its suffix.
READERS: Final[Mapping[str, Callable[[Path], object]]] = {
    ".npz": _read_archive,
    ".safetensors": _read_safetensors,
    ".onnx": _read_onnx,
}
