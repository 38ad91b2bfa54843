"""The answer to a call by HTTP: JSON, and tensors as bytes behind it."""

from collections.abc import Set as AbstractSet

from fastapi import Response
from pydantic import BaseModel, Field
from pydantic_core import to_json

from service.http.inference_protocol.calls.tensors import Datatype, Tensor, as_bytes


class ResponseOutput(BaseModel):
    """An output of a model."""

    name: str
    shape: list[int]
    datatype: Datatype
    parameters: dict[str, int] | None = Field(
        None, description="`binary_data_size`: its bytes behind the JSON, instead of `data`"
    )
    data: list[str | float] | None = Field(None, description="Its elements, row by row")


class InferenceResponse(BaseModel):
    """The JSON of an answer."""

    model_name: str
    model_version: str
    id: str = Field("", description="The request's, if it had one")
    outputs: list[ResponseOutput]


def answer(
    model: tuple[str, str], call_id: str, tensors: list[Tensor], binary: AbstractSet[str]
) -> Response:
    """The answer to a call.

    Args:
        model: Name and version of the model that answered.
        call_id: The request's id, or "".
        tensors: The outputs.
        binary: Names of those that are sent as bytes.
    """
    name, version = model
    outputs, behind = list[dict[str, object]](), list[bytes]()
    for tensor in tensors:
        fields = {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype}
        if tensor.name in binary:
            behind.append(as_bytes(tensor))
            outputs.append(fields | {"parameters": {"binary_data_size": len(behind[-1])}})
        else:
            outputs.append(fields | {"data": tensor.elements()})
    identity = {"id": call_id} if call_id else {}
    text = to_json({"model_name": name, "model_version": version, **identity, "outputs": outputs})
    if not behind:
        return Response(text, media_type="application/json")
    headers = {"Inference-Header-Content-Length": str(len(text))}
    content = b"".join([text, *behind])
    return Response(content, headers=headers, media_type="application/octet-stream")
