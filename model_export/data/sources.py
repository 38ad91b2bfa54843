"""Where annotated images lie on disk, and reading them whatever their form."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model_export.data.annotations import Annotations
from model_export.data.coco import read_coco
from model_export.data.voc import read_voc


@dataclass(frozen=True, slots=True)
class DataSource:
    """The location of annotated images.

    Attributes:
        path: A COCO json, or a VOC folder.
        images: The folder of a COCO json's images (default: the folder of the json).
        split: Which split of a VOC folder.
    """

    path: Path
    images: Path | None = None
    split: str = "train"


def read_annotations(
    source: Path,
    images: Path | None = None,
    *,
    split: str = "train",
    class_names: Sequence[str] | None = None,
) -> Annotations:
    """Read a COCO json or a Pascal VOC folder, whichever it is.

    Args:
        source: A COCO json file, or a folder with ImageSets, Annotations and JPEGImages.
        images: The folder of a COCO json's images (default: the folder of the json).
        split: Which list of a VOC folder's ImageSets/Main.
        class_names: Class id to name (default: the data set's own classes).

    Raises:
        ModelExportError: The source is neither, or is damaged.
    """
    if source.is_dir():
        return read_voc(source, split, class_names=class_names)
    return read_coco(source, images or source.parent).targets(class_names)
