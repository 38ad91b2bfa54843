"""Answers and headers in the OpenAPI document."""

from typing import Any, Final

from service.errors import (
    DeadlineError,
    HeadTooLargeError,
    InvalidOptionError,
    MalformedRequestError,
    MethodNotAllowedError,
    NotAcceptableError,
    NotAliveError,
    NotFoundError,
    NotReadyError,
    QueueFullError,
    ServiceError,
    TooLargeError,
    TransferCodingError,
    UnauthorizedError,
    UnsupportedTypeError,
    UnsupportedVersionError,
)
from service.http.problems import Problem, answer_error

Described = dict[str, Any]
Responses = dict[int | str, Described]

EXAMPLE_ID: Final = "3f2504e04f8941d39a0c0305e82c3301"
HEADERS: Final[dict[str, Described]] = {
    "X-Request-ID": {
        "description": "The request's own `X-Request-ID`, if it is harmless, else a new one",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
        "example": EXAMPLE_ID,
    },
    "Server-Timing": {
        "description": "Milliseconds in the server, in total and for a detection by stage",
        "schema": {"type": "string"},
        "example": "decode;dur=1.90, queue;dur=0.10, inference;dur=8.20, total;dur=10.70",
    },
    "Retry-After": {
        "description": "Seconds after which what was refused for the moment may be sent again",
        "schema": {"type": "integer", "minimum": 1},
        "example": 1,
    },
    "Allow": {
        "description": "The methods of this path",
        "schema": {"type": "string"},
        "example": "POST",
    },
    "WWW-Authenticate": {
        "description": "The authentication scheme; `X-API-Key` will do as well",
        "schema": {"type": "string"},
        "example": "Bearer",
    },
    "Accept-Encoding": {
        "description": "Codings of a body, if the request's was another",
        "schema": {"type": "string"},
        "example": "gzip, deflate",
    },
}
OF_EVERY_ANSWER: Final = ("X-Request-ID", "Server-Timing")
# For each status: when it comes, an example, and the headers that it has or may have.
PROBLEMS: Final[dict[int, tuple[str, ServiceError, tuple[str, ...]]]] = {
    400: ("Malformed body, or no image", MalformedRequestError("the request holds no image"), ()),
    401: (
        "API key missing or wrong",
        UnauthorizedError("send the key as X-API-Key, or as Authorization: Bearer"),
        ("WWW-Authenticate",),
    ),
    404: ("Nothing is at this path", NotFoundError("Not Found; see /docs"), ()),
    405: (
        "The path takes other methods",
        MethodNotAllowedError("Method Not Allowed; see /docs"),
        ("Allow",),
    ),
    406: (
        "A picture of several images, or a type that there is not",
        NotAcceptableError("a picture can show one image; send one, or ask for application/json"),
        (),
    ),
    413: (
        "Body, image count or pixel count over the limit",
        TooLargeError("a request may hold at most 32 images"),
        (),
    ),
    415: (
        "Not a type that is accepted",
        UnsupportedTypeError(
            "this is not an image of an accepted type (JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF)"
        ),
        ("Accept-Encoding",),
    ),
    422: (
        "An option out of range, or an image that cannot be decoded",
        InvalidOptionError("unknown option conf; did you mean confidence?"),
        (),
    ),
    431: (
        "The request line and headers are too long",
        HeadTooLargeError("the request line and headers may have at most 65536 bytes"),
        (),
    ),
    500: (
        "A bug",
        ServiceError("an unexpected error; the server's log has it by this request_id"),
        (),
    ),
    501: (
        "A Transfer-Encoding other than chunked",
        TransferCodingError("the only Transfer-Encoding that is understood is chunked"),
        (),
    ),
    503: (
        "Queue or memory full, shutting down, or the model failed",
        QueueFullError("all 256 places in the queue are taken", retry_after_s=1),
        ("Retry-After",),
    ),
    504: (
        "The deadline passed",
        DeadlineError("the deadline passed before the answer was ready; give it more time"),
        (),
    ),
    505: (
        "A version of HTTP other than 1.0 and 1.1",
        UnsupportedVersionError("this server speaks HTTP/1.1, and not HTTP/2.0"),
        (),
    ),
}
OF_EVERY_PATH: Final = (404, 405, 431, 500, 501, 505)


def problems(*statuses: int) -> Responses:
    """The errors of an operation, those that every path may give included."""
    return {status: _problem(*PROBLEMS[status]) for status in sorted({*statuses, *OF_EVERY_PATH})}


def shared_problems() -> Described:
    """Each error by its name, as operations refer to it."""
    return {
        type(row[1]).__name__.removesuffix("Error"): _problem(*row) for row in PROBLEMS.values()
    }


def unready_problem() -> Responses:
    """The answer of the readiness check if the server is not ready."""
    example = NotReadyError("the server is shutting down", retry_after_s=1)
    return {503: _problem("Why the server should get no new work", example, ("Retry-After",))}


def dead_problem() -> Responses:
    """The answer of the liveness check if only a new process would help."""
    example = NotAliveError("the last 6 probes of the model failed")
    return {503: _problem("Why the server should be started again", example, ())}


def headers(*names: str) -> Described:
    """References to the headers of an answer, those that every answer has included."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*OF_EVERY_ANSWER, *names)}


def success(description: str, content: Described | None = None, *names: str) -> Responses:
    """The good answer of an operation.

    Args:
        description: Its meaning.
        content: Its content by media type, beyond what FastAPI finds.
        names: Headers that it may have, beside those of every answer.
    """
    answer = {"description": description, "headers": headers(*names)}
    return {200: answer | ({"content": content} if content else {})}


def _problem(description: str, example: ServiceError, names: tuple[str, ...]) -> Described:
    document = Problem.model_validate_json(bytes(answer_error(example, EXAMPLE_ID).body))
    content = {
        "schema": {"$ref": "#/components/schemas/Problem"},
        "example": document.model_dump(),
    }
    return {
        "description": description,
        "headers": headers(*names),
        "content": {"application/problem+json": content},
    }
