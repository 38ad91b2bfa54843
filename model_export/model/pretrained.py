"""Start a training from the weights of an earlier one, even if it had other classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model_export.errors import ModelExportError
from model_export.model.batch_norm_statistics import carries_statistics
from model_export.model.checkpoint import (
    class_count,
    difference_in_kind,
    difference_in_names,
    read_state_dict,
    shapes_of,
)
from model_export.model.head import CoupledHead
from model_export.model.variants import HeadKind
from model_export.model.yolox import YOLOX


@dataclass(frozen=True, slots=True)
class Loaded:
    """The outcome of loading a file into a model.

    Attributes:
        path: The file.
        tensors: Number of the model's tensors that were loaded from the file.
        total: Number of tensors in the model.
        new: Names of the tensors not loaded: class predictions, if the file has another number of
            classes. In a coupled head, only their rows for classes keep their initial values.
        classes: The model's number of classes.
        classes_in_file: The file's number of classes.
        folded: Whether the file's batch norms carry no statistics. Before a training, the model
            then needs `model_export.model.batch_norm_statistics.restore_statistics`.
    """

    path: Path
    tensors: int
    total: int
    new: tuple[str, ...]
    classes: int
    classes_in_file: int
    folded: bool

    def line(self) -> str:
        """One line for a person."""
        parts = [f"loaded {self.tensors} of {self.total} tensors from {self.path}"]
        if self.new:
            # Report `head.cls_preds.0.weight` and its siblings as one layer, `head.cls_preds`.
            layers = sorted({name.rsplit(".", 2)[0] for name in self.new})
            counts = f"{self.classes} classes instead of {self.classes_in_file}"
            parts.append(f"new: {', '.join(layers)} ({counts})")
        if self.folded:
            parts.append("its batch norms are folded")
        return "; ".join(parts)


def initialise(model: YOLOX, path: Path) -> Loaded:
    """Fill a model with the weights of a file that may have another number of classes.

    If the numbers differ, the model keeps its own class predictions; a coupled head still takes the
    rows for box and objectness. If they are equal, all weights are taken, even if the classes have
    other names.

    Args:
        model: The model, untrained.
        path: A file that `model_export.model.checkpoint.read_state_dict` reads.

    Raises:
        ModelExportError: The file cannot be read, or its weights are those of another model; the
            model is then unchanged.
    """
    state, fresh = read_state_dict(path), model.state_dict()
    head: HeadKind = "coupled" if isinstance(model.head, CoupledHead) else "decoupled"
    expected, found = shapes_of(fresh), shapes_of(state)
    fitted = _with_classes_of(fresh, state, head)
    if shapes_of(fitted) != expected:
        names = difference_in_names(expected, shapes_of(fitted))
        reason = difference_in_kind(expected, found) or names
        raise ModelExportError(f"cannot start from {path}: {reason}; only the classes may differ")
    model.load_state_dict(fitted)
    new = tuple(name for name in expected if found[name] != expected[name])
    return Loaded(
        path=path,
        tensors=len(expected) - len(new),
        total=len(expected),
        new=new,
        classes=class_count(expected, head),
        classes_in_file=class_count(found, head),
        folded=not carries_statistics(model),
    )


def _with_classes_of(
    fresh: Mapping[str, Tensor], state: Mapping[str, Tensor], head: HeadKind
) -> dict[str, Tensor]:
    """The weights of a file, with the model's own class rows if their number differs."""
    layers, kept = ("head.preds.", 5) if head == "coupled" else ("head.cls_preds.", 0)
    given = class_count(shapes_of(state), head)
    fitted = dict(state)
    for name, own in fresh.items():
        theirs = (kept + given, *own.shape[1:])
        if name.startswith(layers) and name in state and state[name].shape == theirs != own.shape:
            fitted[name] = torch.cat([state[name][:kept], own[kept:].to(state[name])])
    return fitted
