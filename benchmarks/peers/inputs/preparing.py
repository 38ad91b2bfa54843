"""Checks of a comparison's model and photos, before anything long begins."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.peers.inputs.server_flags import settings_of
from model_export.errors import ModelExportError
from model_export.measure.local_detector import load_onnx
from service.core.contract import ModelContract
from service.core.letterbox import LetterboxMode
from service.errors import ServiceError
from service.imaging.read import read_image
from service.settings import Settings

JPEG_SUFFIXES: Final = (".jpg", ".jpeg")


def read_contract(model: Path) -> ModelContract:
    """The contract that a model file carries.

    Raises:
        ModelExportError: The file cannot be loaded, or has no contract.
    """
    return load_onnx(model)[1]


def check_same_weights(model: Path, other: Path) -> None:
    """See that two files were made of the same weights.

    Raises:
        ModelExportError: Their contracts differ in name or version.
    """
    ours, theirs = read_contract(model), read_contract(other)
    if (ours.name, ours.version) != (theirs.name, theirs.version):
        raise ModelExportError(
            f"{model} is {ours.name} {ours.version}, and {other} {theirs.name} {theirs.version}; "
            "adopt both of one file"
        )


def find_photos(source: Path | Sequence[Path]) -> list[Path]:
    """The JPEG files of a folder, or those among some files, by name.

    Raises:
        ModelExportError: There are none.
    """
    files = source.iterdir() if isinstance(source, Path) and source.is_dir() else source
    if isinstance(files, Path):
        raise ModelExportError(f"there is no folder {source}")
    photos = sorted(path for path in files if path.suffix.lower() in JPEG_SUFFIXES)
    if not photos:
        raise ModelExportError("there are no JPEG files to send")
    return photos


def comparable_photos(photos: Sequence[Path], contract: ModelContract, limit: int) -> list[Path]:
    """The photos on which boxes can be compared.

    Our server decodes a JPEG that is far larger than the network's input in fewer pixels, which
    moves boxes a little. The peers do not.

    Args:
        photos: JPEG files.
        contract: The model's.
        limit: How many photos to return at most.

    Raises:
        ModelExportError: There are none.
    """
    fit = (contract.input.height, contract.input.width)
    chosen: list[Path] = []
    for photo in photos:
        if len(chosen) < limit and _is_decoded_whole(photo, fit):
            chosen.append(photo)
    if not chosen:
        raise ModelExportError(
            f"boxes cannot be compared: every photo is so much larger than {fit[0]}x{fit[1]} that "
            "our server decodes it in fewer pixels; give --photos of less than four times that side"
        )
    return chosen


def letterbox_of(flags: Sequence[str], contract: ModelContract) -> LetterboxMode:
    """How our server, with these flags and on a CPU, fits images into the network's input."""
    settings = settings_of(flags)
    usual: LetterboxMode = "rectangle" if contract.input.dynamic_size else "square"
    return settings.letterbox or usual


def _is_decoded_whole(photo: Path, fit: tuple[int, int]) -> bool:
    try:
        image = read_image(photo.read_bytes(), Settings().max_image_pixels, fit=fit)
    except ServiceError as error:
        raise ModelExportError(f"{photo}: {error.detail}") from error
    return image.pixels.shape[:2] == (image.height, image.width)
