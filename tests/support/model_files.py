"""Small model files with a contract, which the server can load."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from model_export.graphs.onnx_file import save_with_contract
from service.core.contract import InputSpec, ModelContract
from service.engine.base import LoadableEngine
from service.engine.choose import EngineOptions, open_engine
from support.onnx_models import tiny_yolox_model

NAMES = ("red", "green", "blue")
RNG = np.random.default_rng(0)
IMAGES: NDArray[np.uint8] = RNG.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


def model_file(
    folder: Path, model: onnx.ModelProto | None = None, names: tuple[str, ...] = NAMES, **spec: Any
) -> Path:
    fields = {"name": "images", "height": 64, "width": 64, "layout": "NCHW", "dtype": "float32"}
    contract = ModelContract("tiny", "1", InputSpec(**(fields | spec)), names)
    path = folder / "tiny.onnx"
    save_with_contract(model or tiny_yolox_model(), contract, path)
    return path


def loaded(path: Path, **options: Any) -> LoadableEngine:
    """The engine that serves the file, by default ONNX Runtime on the CPU."""
    return open_engine(EngineOptions(path, **({"device": "cpu"} | options)))


def dynamic_model(folder: Path) -> Path:
    """A file of 64 x 96 pixels, or any other size."""
    return model_file(folder, tiny_yolox_model(dynamic_size=True), width=96, dynamic_size=True)
