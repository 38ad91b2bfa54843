"""Bodies and errors in the OpenAPI document, which FastAPI cannot find in a signature."""

from typing import Any, Final

from service.http.options import DetectJson
from service.http.problems import Problem

IMAGE_FILE: Final = {"type": "string", "format": "binary"}
IMAGE_FORM: Final = {
    "type": "object",
    "properties": {"images": {"type": "array", "items": IMAGE_FILE}},
}
REQUEST_BODIES: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": IMAGE_FORM},
            "image/*": {"schema": IMAGE_FILE},
            "application/octet-stream": {"schema": IMAGE_FILE},
            "application/json": {"schema": DetectJson.model_json_schema()},
        },
    }
}
PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"description": meaning, "model": Problem}
    for status, meaning in {
        400: "Malformed body, or no image",
        401: "API key missing or wrong",
        406: "A picture of several images",
        413: "Body, image count or pixel count over the limit",
        415: "Not a type that is accepted",
        422: "An option out of range, or an image that cannot be decoded",
        500: "A bug",
        503: "Queue full, shutting down, or the model failed; see Retry-After",
        504: "The deadline passed",
    }.items()
}
KEY_PROBLEM: Final[dict[int | str, dict[str, Any]]] = {401: PROBLEMS[401]}
UNHEALTHY: Final[dict[int | str, dict[str, Any]]] = {
    503: {"description": "Why not", "model": Problem}
}
