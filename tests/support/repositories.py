"""Model repositories of tiny models that tell by their answers which version they are."""

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from model_export.graphs.onnx_file import save_with_contract
from service.core.contract import InputSpec, ModelContract, Recommended
from support.model_files import NAMES
from support.onnx_models import tiny_yolox_model

# Brightness of a picture on which every version finds boxes.
WHITE = 250
# A model that recommends no thresholds of its own.
SERVICE_DEFAULTS = Recommended()


def write_version(
    folder: Path,
    name: str,
    version: str,
    *,
    logit: float = -5.0,
    names: tuple[str, ...] = NAMES,
    recommended: Recommended = SERVICE_DEFAULTS,
    broken: bool = False,
) -> Path:
    """Write `folder/name/version/model.onnx`; `logit` shifts every objectness, so the answer."""
    path = folder / name / version / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_model(path, logit=logit, names=names, recommended=recommended, broken=broken)
    return path


def write_model(
    path: Path,
    *,
    logit: float = -5.0,
    names: tuple[str, ...] = NAMES,
    recommended: Recommended = SERVICE_DEFAULTS,
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
    contract = ModelContract("tiny", contract_version, spec, names, recommended=recommended)
    save_with_contract(model, contract, aside)
    aside.replace(path)


def write_apart(path: Path, *, logit: float, weights_only: bool = False) -> None:
    """Write a model whose weights are in `weights.bin` beside it; both, or the weights alone."""
    aside = path.parent / "aside"
    aside.mkdir(exist_ok=True)
    write_model(aside / path.name, logit=logit)
    model = onnx.load(aside / path.name)
    onnx.save(
        model,
        aside / path.name,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=60,  # the shapes of reshapes stay
    )
    for name in ("weights.bin",) if weights_only else ("weights.bin", path.name):
        (aside / name).replace(path.parent / name)
    shutil.rmtree(aside)


def write_garbage(folder: Path, name: str, version: str) -> None:
    """Write a version whose file is no model."""
    path = folder / name / version / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"<html>404</html>")


def remove(folder: Path, *parts: str) -> None:
    """Remove a model, or a version of one."""
    shutil.rmtree(folder.joinpath(*parts))
