"""The protocol's bodies in the OpenAPI document."""

from typing import Any, Final

from pydantic.json_schema import models_json_schema

from service.http.inference_protocol.calls.repository import ChangeRequest, IndexRequest
from service.http.inference_protocol.json_call import InferenceRequest
from service.http.problems import ProtocolError

BODIES: Final = (InferenceRequest, IndexRequest, ChangeRequest, ProtocolError)


def protocol_schemas() -> dict[str, Any]:
    """The schemas that the calls refer to, by name."""
    kinds = [(body, "validation") for body in BODIES]
    _, schemas = models_json_schema(kinds, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    found: dict[str, Any] = schemas["$defs"]
    return found
