"""The COCO json of a split, in the folders where tools write it."""

from pathlib import Path

from model_export.data.annotations import first_few
from model_export.data.forms.splits import (
    is_all_for_training,
    is_of_split,
    no_split,
    split_folder,
    split_folders,
)
from model_export.errors import ModelExportError


def coco_file(folder: Path, split: str) -> Path:
    """The COCO json of a split: Roboflow's, CVAT's, Label Studio's, COCO's own, or the only one.

    Args:
        folder: The data set.
        split: Which split; a data set of one json is all for training.

    Raises:
        ModelExportError: There is none, or there are several.
    """
    files = coco_files(folder)
    if own := split_folder(folder, split):
        files_of_split = _jsons(own)
    else:
        files_of_split = [path for path in files if is_of_split(path.stem, split)]
    if not files_of_split and len(files) == 1 and is_all_for_training(files[0], folder, split):
        files_of_split = files
    if not files_of_split:
        raise no_split(folder, split, [str(path.relative_to(folder)) for path in files])
    if len(files_of_split) > 1:
        names = first_few(path.relative_to(folder) for path in files_of_split)
        raise ModelExportError(f"{folder} has several COCO files for {split}: {names}; name one")
    return files_of_split[0]


def coco_files(folder: Path) -> list[Path]:
    """The files in a data set's usual folders that look like COCO jsons, sorted."""
    places = [folder, folder / "annotations", *split_folders(folder)]
    files = [path for place in places if place.is_dir() for path in _jsons(place)]
    # COCO's own folder has captions, keypoints and more beside the boxes.
    instances = [path for path in files if path.stem.startswith("instances_")]
    return instances or files


def _jsons(folder: Path) -> list[Path]:
    visible = (path for path in sorted(folder.glob("*.json")) if not path.name.startswith("."))
    return [path for path in visible if _looks_like_coco(path)]


def _looks_like_coco(path: Path) -> bool:
    """Whether its name is that of a tool, or the names of COCO's lists are in the file."""
    if path.name.startswith("instances_") or path.name.endswith(".coco.json"):
        return True
    try:
        content = path.read_bytes()
    except OSError:
        return False
    # In UTF-16, every second byte of these names is 0.
    plain = content.replace(b"\0", b"")
    return all(name in plain for name in (b'"images"', b'"annotations"', b'"categories"'))
