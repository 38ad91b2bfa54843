"""Calls of the Open Inference Protocol, written byte by byte."""

import base64
import json
from typing import Any

import numpy as np

from support.pictures import plain

INFER = "/v2/models/fake/infer"
DEFAULT = ("num_detections", "boxes", "scores", "objectness", "class_scores", "class_ids",
           "class_names", "image_sizes")  # fmt: skip


def files(*contents: bytes, **changes: Any) -> dict[str, Any]:
    """The JSON of a call with these image files."""
    data = [base64.b64encode(content).decode() for content in contents]
    return image(shape=[len(data)], datatype="BYTES", data=data) | changes


def image(**fields: Any) -> dict[str, Any]:
    """The JSON of a call with this input."""
    return {"inputs": [{"name": "image"} | fields]}


def prefixed(*contents: bytes) -> bytes:
    """The elements of a BYTES tensor."""
    return b"".join(len(each).to_bytes(4, "little") + each for each in contents)


def framed(call: dict[str, Any], behind: bytes, **headers: str) -> dict[str, Any]:
    """The arguments of a request whose JSON has bytes behind it."""
    text = json.dumps(call).encode()
    own = {"Inference-Header-Content-Length": str(len(text))}
    return {"content": text + behind, "headers": own | headers}


def binary(datatype: str, shape: list[int], behind: bytes, **changes: Any) -> dict[str, Any]:
    """The arguments of a request whose one input is bytes behind the JSON."""
    size = {"binary_data_size": len(behind)}
    call = image(shape=shape, datatype=datatype, parameters=size) | changes
    return framed(call, behind)


def outputs(response: Any) -> dict[str, Any]:
    """The outputs of an answer, as arrays."""
    assert response.status_code == 200, response.text
    length = int(response.headers.get("inference-header-content-length", len(response.content)))
    answer, rest = json.loads(response.content[:length]), response.content[length:]
    types = {"INT64": "<i8", "FP32": "<f4", "BYTES": object}
    found = {}
    for output in answer["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            values = np.array(output["data"], types[output["datatype"]])
        elif output["datatype"] == "BYTES":
            values = np.array(_elements(rest[:size]), object)
        else:
            values = np.frombuffer(rest[:size], types[output["datatype"]])
        rest = rest[size or 0 :]
        found[output["name"]] = values.reshape(output["shape"])
    assert not rest
    return found


def _elements(data: bytes) -> list[str]:
    found = []
    while data:
        length = int.from_bytes(data[:4], "little")
        found.append(data[4 : 4 + length].decode())
        data = data[4 + length :]
    return found


def error(response: Any, status: int) -> str:
    """The text of an error in the protocol's form."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    return str(body["error"])


BINARY_FILE = binary("BYTES", [1], prefixed(plain()))
