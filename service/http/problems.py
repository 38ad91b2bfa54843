"""The one error handler: any exception becomes an answer in the form that its path promises."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from service.errors import (
    ClientLeftError,
    InvalidOptionError,
    MalformedRequestError,
    MethodNotAllowedError,
    NotFoundError,
    ServiceError,
)

# Whatever else is raised is a bug.
EXPECTED_ERRORS: Final = (ServiceError, RequestValidationError, HTTPException, ClientDisconnect)
# Below this path errors have the form of the Open Inference Protocol.
PROTOCOL: Final = "/v2"
# The protocol knows no other status for what is wrong with a request's content.
AS_MALFORMED: Final = (415, 422)
# Pydantic's kinds of findings, in words that say what is allowed.
PLAINER: Final = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "float_parsing": "must be a number, with a point before its decimals, such as 0.5",
    "float_type": "must be a number, such as 0.5",
    "int_parsing": "must be a whole number, such as 100",
    "int_from_float": "must be a whole number, such as 100",
    "int_type": "must be a whole number, such as 100",
}
# The part of the protocol that this server has.
NOT_IN_PROTOCOL: Final = (
    "nothing is at this path; of the Open Inference Protocol this server has GET /v2, "
    "/v2/health/live, /v2/health/ready, /v2/models/NAME and /v2/models/NAME/ready, POST "
    "/v2/models/NAME/infer, and the extensions binary_tensor_data, model_repository and "
    "parameters; GET /docs lists all paths"
)
OF_FRAMEWORK: Final = {404: NotFoundError, 405: MethodNotAllowedError}


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


class ProtocolError(BaseModel):
    """An error of the Open Inference Protocol."""

    error: str


def as_service_error(error: Exception) -> ServiceError:
    """The member of the server's own hierarchy that stands for an exception of any kind."""
    match error:
        case ServiceError():
            return error
        case RequestValidationError():
            return InvalidOptionError(describe_errors(error.errors()))
        case ClientDisconnect():
            return ClientLeftError("the client closed the connection")
        case HTTPException():
            kind = OF_FRAMEWORK.get(error.status_code, MalformedRequestError)
            return kind(_detail(error))
        case _:
            return ServiceError("an unexpected error; the server's log has it by this request_id")


def answer_error(error: Exception, request_id: str, path: str = "") -> Response:
    """The answer to a request that failed with this exception.

    Args:
        error: The exception.
        request_id: The request's id.
        path: The request's path.
    """
    problem = as_service_error(error)
    if path == PROTOCOL or path.startswith(f"{PROTOCOL}/"):
        if isinstance(error, HTTPException) and isinstance(problem, NotFoundError):
            problem = NotFoundError(NOT_IN_PROTOCOL)
        return _protocol_error(problem, _headers(error))
    # Nothing here can be of another type, and validation would take longer than all the rest.
    document = Problem.model_construct(
        type=f"urn:problem-type:yolox-serve:{problem.slug}",
        title=problem.title,
        status=problem.status,
        detail=problem.detail,
        request_id=request_id,
    )
    return Response(
        document.model_dump_json(),
        status_code=problem.status,
        headers=_headers(error),
        media_type="application/problem+json",
    )


def protocol_status(problem: ServiceError) -> int:
    """The status of an error in the Open Inference Protocol."""
    return 400 if problem.status in AS_MALFORMED else problem.status


def _protocol_error(problem: ServiceError, headers: dict[str, str]) -> Response:
    content = ProtocolError(error=problem.detail).model_dump_json()
    status = protocol_status(problem)
    return Response(content, status, headers, media_type="application/json")


def _headers(error: Exception) -> dict[str, str]:
    """The headers of an error; the framework's has some as well: a 405 says what is allowed."""
    return dict(getattr(error, "headers", None) or {})


def _detail(error: HTTPException) -> str:
    """A sentence that says what is wrong, and where to read on."""
    match error.status_code:
        case 404:
            return (
                "nothing is at this path; images go to POST /detect, and GET /docs lists all paths"
            )
        case 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            return f"this path takes {allowed}; GET /docs shows each request with an example"
        case _:
            return f"{error.detail}; see /docs"


def describe_errors(errors: Sequence[Any]) -> str:
    """Pydantic's findings in one sentence, with what is allowed."""
    return "; ".join(": ".join((*_named(item), _finding(item))) for item in errors)


def _named(item: Mapping[str, Any]) -> list[str]:
    """The name of the field that a finding is about, if there is one, without a place in a list."""
    return [place for place in item["loc"] if isinstance(place, str)][-1:]


def _finding(item: Mapping[str, Any]) -> str:
    plain = PLAINER.get(str(item["type"]))
    return str(item["msg"]) if plain is None else plain
