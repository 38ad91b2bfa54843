"""Write ONNX files that carry a contract."""

from pathlib import Path

import onnx

from model_export.files import write_atomically
from service.core.contract import ModelContract


def save_with_contract(model: onnx.ModelProto, contract: ModelContract, path: Path) -> None:
    """Add a contract to a model's metadata and write the file atomically.

    The contract replaces an older one; all other metadata is kept.
    """
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, metadata | contract.to_metadata())
    write_atomically(model.SerializeToString(), path)
