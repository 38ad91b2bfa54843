"""Model repositories of tiny models that tell by their answers which version they are."""

import shutil
from pathlib import Path

import numpy as np
from onnx import numpy_helper

from model_export.graphs.onnx_file import save_with_contract
from service.core.contract import InputSpec, ModelContract
from support.model_files import NAMES
from support.onnx_models import tiny_yolox_model

# Brightness of a picture on which every version finds boxes.
WHITE = 250


def write_version(
    folder: Path,
    name: str,
    version: str,
    *,
    logit: float = -5.0,
    names: tuple[str, ...] = NAMES,
    broken: bool = False,
) -> Path:
    """Write `folder/name/version/model.onnx`; `logit` shifts every objectness, so the answer."""
    path = folder / name / version / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_model(path, logit=logit, names=names, broken=broken)
    return path


def write_model(
    path: Path,
    *,
    logit: float = -5.0,
    names: tuple[str, ...] = NAMES,
    broken: bool = False,
    contract_version: str = "1",
) -> None:
    """Write a model with a contract in one step, as careful people do: aside, then renamed."""
    model = tiny_yolox_model(objectness_logit=logit)
    if broken:
        for tensor in model.graph.initializer:
            if tensor.name == "bias":
                bias = np.full_like(numpy_helper.to_array(tensor), np.nan)
                tensor.CopyFrom(numpy_helper.from_array(bias, "bias"))
    spec = InputSpec("images", 64, 64, layout="NCHW", dtype="float32")
    aside = path.with_suffix(".part")
    save_with_contract(model, ModelContract("tiny", contract_version, spec, names), aside)
    aside.replace(path)


def write_garbage(folder: Path, name: str, version: str) -> None:
    """Write a version whose file is no model."""
    path = folder / name / version / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"<html>404</html>")


def remove(folder: Path, *parts: str) -> None:
    """Remove a model, or a version of one."""
    shutil.rmtree(folder.joinpath(*parts))
