"""Tiny model files of every form that a contract allows, for the comparison with other servers."""

from pathlib import Path
from typing import Any, Final

from model_export.graphs.onnx_file import save_with_contract
from service.core.contract import BoxCoding, InputSpec, ModelContract, ScoreActivation
from support.onnx_models import tiny_yolox_model

NAMES: Final = ("red", "green", "blue")
# Fields of the contract that the graph must match.
GRAPH_FACTS: Final = ("height", "width", "batch", "dynamic_size", "dtype", "layout")


def tiny_model_file(
    folder: Path,
    *,
    version: str = "1",
    activation: ScoreActivation = "probabilities",
    box_coding: BoxCoding = "yolox",
    **spec: Any,
) -> Path:
    """A model file that finds something in every picture; its default input is float32 planes."""
    spec = {"height": 64, "width": 64, "layout": "NCHW", "dtype": "float32"} | spec
    facts = {name: spec[name] for name in GRAPH_FACTS if name in spec}
    model = tiny_yolox_model(activation=activation, objectness_logit=-3.0, **facts)
    contract = ModelContract(
        "tiny",
        version,
        InputSpec("images", **spec),
        NAMES,
        box_coding=box_coding,
        score_activation=activation,
    )
    path = folder / "tiny.onnx"
    save_with_contract(model, contract, path)
    return path
