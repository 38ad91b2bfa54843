"""Writing ONNX files that carry a contract."""

import os
import tempfile
from pathlib import Path

import onnx

from service.core.contract import ModelContract


def save_with_contract(model: onnx.ModelProto, contract: ModelContract, path: Path) -> None:
    """Stamp a contract into a model's metadata and write the file atomically.

    Metadata the file already has is kept; an older contract is replaced.
    """
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, metadata | contract.to_metadata())
    write_atomically(model.SerializeToString(), path)


def write_atomically(content: bytes, path: Path) -> None:
    """Write a whole file or none: no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
