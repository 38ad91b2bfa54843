"""What a comparison needs of its inputs, seen to before anything long begins."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic_settings import CliApp

from model_export.errors import ModelExportError
from service.core.contract import ModelContract
from service.core.letterbox import LetterboxMode
from service.engine.onnx_engine import OnnxEngine
from service.errors import StartupError
from service.settings import Settings

JPEG_SUFFIXES: Final = (".jpg", ".jpeg")


def read_contract(peers_model: Path, model: Path) -> ModelContract:
    """The contract of a model that the peers' pipeline, which is the official one, can serve.

    Args:
        peers_model: The model.
        model: The same weights, in any form.

    Raises:
        ModelExportError: One of them cannot be loaded, or is of another form or other weights.
    """
    contract, ours = _contract_of(peers_model), _contract_of(model)
    problems = [what for is_wrong, what in _needs(contract) if is_wrong]
    if problems:
        raise ModelExportError(f"{peers_model}: the peers' pipeline needs {', '.join(problems)}")
    if (ours.name, ours.version) != (contract.name, contract.version):
        raise ModelExportError(
            f"{model} is {ours.name} {ours.version}, and {peers_model} {contract.name} "
            f"{contract.version}; adopt both of one file"
        )
    return contract


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


def letterbox_of(flags: Sequence[str], contract: ModelContract) -> LetterboxMode:
    """How our server, with these flags and on a CPU, fits images into the network's input."""
    settings = CliApp.run(Settings, cli_args=list(flags))
    usual: LetterboxMode = "rectangle" if contract.input.dynamic_size else "square"
    return settings.letterbox or usual


def _contract_of(model: Path) -> ModelContract:
    engine = OnnxEngine(model, device="cpu")
    try:
        engine.load()
    except StartupError as error:
        raise ModelExportError(str(error)) from error
    return engine.contract


def _needs(contract: ModelContract) -> list[tuple[bool, str]]:
    image = contract.input
    return [
        (image.batch is not None, "any batch size"),
        (image.layout != "NCHW" or image.dtype != "float32", "float32 images as NCHW"),
        (image.color_order != "BGR", "BGR images"),
        (image.value_range != (0.0, 255.0), "values of 0 to 255"),
        (image.pad_value != 114, "padding of 114"),
        (contract.strides != (8, 16, 32), "strides of 8, 16 and 32"),
        (contract.box_coding != "yolox", "the box coding of YOLOX"),
        (contract.score_activation != "probabilities", "scores that are probabilities"),
    ]
