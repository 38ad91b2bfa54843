"""The server and its models as the protocol describes them."""

from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel, Field

from service import __version__
from service.engine.base import OPENVINO
from service.http.inference_protocol.calls.images import IMAGE
from service.http.inference_protocol.calls.outputs import OUTPUTS
from service.http.inference_protocol.calls.tensors import Datatype
from service.models.served import ServedModel

SERVER_NAME: Final = "yolox-serve"
EXTENSIONS: Final = ("binary_tensor_data", "model_repository", "parameters")


class ServerMetadata(BaseModel):
    """The answer of `GET /v2`."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """An input or output of a model."""

    name: str
    datatype: Datatype
    shape: list[int] = Field(description="The length of each axis, -1 where it varies")


class ModelMetadata(BaseModel):
    """The answer of `GET /v2/models/{name}`."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


def server_metadata() -> ServerMetadata:
    """The server."""
    return ServerMetadata(name=SERVER_NAME, version=__version__, extensions=[*EXTENSIONS])


def model_metadata(model: ServedModel, versions: Sequence[str]) -> ModelMetadata:
    """A model.

    Args:
        model: The model.
        versions: The versions of it that a call may name.
    """
    project = "openvino" if model.ref.provider == OPENVINO else "onnxruntime"
    outputs = [
        TensorMetadata(name=name, datatype=output.datatype, shape=[*output.shape])
        for name, output in OUTPUTS.items()
    ]
    return ModelMetadata(
        name=model.name,
        versions=[*versions],
        platform=f"{project}_onnx",
        # Pixels are taken as well, but an input can be described once only.
        inputs=[TensorMetadata(name=IMAGE, datatype="BYTES", shape=[-1])],
        outputs=outputs,
    )
