"""The network and the classes of a weights file, as far as the user does not state them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from model_export.data.class_names import COCO_CLASS_NAMES, read_class_names
from model_export.errors import ModelExportError
from model_export.model.variants import HeadKind, Variant
from service.core.contract import ModelContract

if TYPE_CHECKING:
    from model_export.model.checkpoint import Kind


def kind_of_weights(weights: Path, variant: Variant | None, head: HeadKind | None) -> "Kind":
    """The variant, head and number of classes of weights; stated ones come first.

    Raises:
        ModelExportError: There is no such file, or its weights are of no known model.
    """
    # Only here, so that `--help` does not wait for torch.
    from model_export.model.checkpoint import Kind, identify, read_state_dict, shapes_of  # noqa: PLC0415

    if weights.is_dir():
        raise ModelExportError(f"{weights} is a folder; name the file in it, such as best.pth")
    if not weights.is_file():
        raise ModelExportError(f"cannot read {weights}: there is no such file")
    found = identify(shapes_of(read_state_dict(weights)))
    if found is not None:
        return Kind(variant or found.variant, head or found.head, found.num_classes)
    if variant is None:
        raise ModelExportError(
            f"{weights} holds the weights of no model that is known here; if they are those of "
            "one, say which with --variant, to see how they differ"
        )
    return Kind(variant, head or "decoupled", 0)


def names_of_weights(
    stated: str | None, kind: "Kind", known: ModelContract | None = None
) -> tuple[str, ...]:
    """The stated names, or the checkpoint's; COCO's for weights of 80 classes, which is told.

    Raises:
        ModelExportError: The weights have another number of classes, and no names are stated.
    """
    if stated:
        return read_class_names(stated)
    if known:
        return known.class_names
    if kind.num_classes == len(COCO_CLASS_NAMES):
        sys.stderr.write(f"the class names are taken to be COCO's {kind.num_classes}\n")
        return COCO_CLASS_NAMES
    raise ModelExportError(
        f"the weights have {kind.num_classes or 'an unknown number of'} classes; add --names with "
        "a file of one name per line"
    )
