"""The one error handler: any exception becomes an RFC 9457 problem document."""

from collections.abc import Sequence
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
OF_FRAMEWORK: Final = {404: NotFoundError, 405: MethodNotAllowedError}


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


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


def answer_error(error: Exception, request_id: str) -> Response:
    """The answer to a request that failed with this exception."""
    problem = as_service_error(error)
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
        # The framework's errors bring headers as well: a 405 says which methods are allowed.
        headers=dict(getattr(error, "headers", None) or {}),
        media_type="application/problem+json",
    )


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
    """Pydantic's findings in one sentence."""
    return "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in errors)
