"""The calls of the protocol in the OpenAPI document."""

from typing import Any, Final

from service.errors import (
    BusyError,
    DeadlineError,
    ForbiddenError,
    MalformedRequestError,
    MethodNotAllowedError,
    ModelInUseError,
    NotFoundError,
    NotReadyError,
    ServiceError,
    TooLargeError,
    UnauthorizedError,
)
from service.http.openapi.problems import PROBLEMS, Described, Responses, headers, problems

TAG: Final = "inference protocol"
# The part of a path that names a version.
VERSION: Final = "/versions/{version}"
ERROR: Final = {"$ref": "#/components/schemas/ProtocolError"}
# The parser refuses what is no request before its path is known.
IN_ITS_OWN_FORM: Final = (431, 501, 505)
EXAMPLES: Final[dict[int, tuple[str, ServiceError]]] = {
    400: (
        "Malformed call, an unknown tensor or parameter, or an image that cannot be used",
        MalformedRequestError("inputs: the one input is 'image', and 'images' was sent"),
    ),
    401: ("The key is missing or wrong", UnauthorizedError("send the key as X-API-Key")),
    403: (
        "The server does not allow these calls",
        ForbiddenError("the setting repository_key, which these calls need, is unset"),
    ),
    404: ("There is no such model or path", NotFoundError("there is no model 'yolo'")),
    405: ("This path takes other methods", MethodNotAllowedError("this path takes POST")),
    409: (
        "The model answers requests that name none",
        ModelInUseError("to unload it, start the server with another default_model"),
    ),
    413: ("Body, images or pixels over the limit", TooLargeError("a request is too large")),
    500: ("A fault of the server's", ServiceError("an unexpected error")),
    503: (
        "No room in the queue or in memory, not ready, or the model failed",
        BusyError("too many bytes of requests are held at once", retry_after_s=1),
    ),
    504: ("The deadline was missed", DeadlineError("the deadline passed")),
}
OF_EVERY_CALL: Final = (404, 405, 500)
HEADER_LENGTH: Final = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "Length of the JSON where bytes follow it; 0 where the body is one image file",
    "schema": {"type": "integer", "minimum": 0},
}


def errors(*statuses: int) -> Responses:
    """The errors of a call, those that every call may give included."""
    own: Responses = {status: _error(status) for status in sorted({*statuses, *OF_EVERY_CALL})}
    shared = problems()
    return own | {status: shared[status] for status in IN_ITS_OWN_FORM}


def unready() -> Responses:
    """The answer where the server or a model is not ready or not alive."""
    return {503: _described(NotReadyError("the server is shutting down"), "Not now", "Retry-After")}


def json_body(schema: str) -> Described:
    """A body that may be left out."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"requestBody": {"required": False, "content": content}}


def infer_body(example: str) -> Described:
    """The body of an inference call.

    Args:
        example: An image file in base64.
    """
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [example]}
    schema = {"$ref": "#/components/schemas/InferenceRequest"}
    binary = {"type": "string", "format": "binary"}
    return {
        "parameters": [HEADER_LENGTH],
        "requestBody": {
            "required": True,
            "description": "JSON, or JSON with the tensors' bytes behind it. The body may be "
            "compressed with `Content-Encoding: gzip` or `deflate`.",
            "content": {
                "application/json": {"schema": schema, "example": {"inputs": [image]}},
                "application/octet-stream": {"schema": binary},
            },
        },
    }


def infer_answers() -> Responses:
    """The answers of an inference call."""
    content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    found = {"description": "The outputs", "headers": headers(), "content": content}
    return {200: found} | errors(400, 401, 413, 503, 504)


def _error(status: int) -> Described:
    description, example = EXAMPLES[status]
    return _described(example, description, *PROBLEMS.get(status, ("", example, ()))[2])


def _described(example: ServiceError, description: str, *names: str) -> Described:
    content: dict[str, Any] = {"schema": ERROR, "example": {"error": example.detail}}
    return {
        "description": description,
        "headers": headers(*names),
        "content": {"application/json": content},
    }
