"""Errors of the client: one hierarchy, with a class for each kind of problem document."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class YoloxClientError(Exception):
    """An image or a request has no result; the message says why."""


class ServerUnreachableError(YoloxClientError):
    """No server answered, though the request was repeated."""


class UnexpectedAnswerError(YoloxClientError):
    """The answer is not one of this service: another server is at this address."""


class UnusableImageError(YoloxClientError):
    """The image could not be read here, so it was not sent."""


class ClientDeadlineError(YoloxClientError):
    """The client's own time was over before there was an answer."""


class ProblemError(YoloxClientError):
    """The server answered with a problem document (RFC 9457).

    Attributes:
        status: The HTTP status.
        title: Short name of the problem.
        detail: A sentence that says what is wrong.
        slug: Last part of the problem's `type`, such as `queue-full`; empty for one image of
            several, whose problem has no type.
        request_id: The request's name in the server's log; empty for one image of several.
        retry_after_s: Seconds after which the request may succeed, if the server says so.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        slug: str = "",
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{status} {title}: {detail}")
        self.status = status
        self.title = title
        self.detail = detail
        self.slug = slug
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class MalformedRequestError(ProblemError):
    """400: the body is no image."""


class UnauthorizedError(ProblemError):
    """401: the server requires an API key, and this one is missing or wrong."""


class TooLargeError(ProblemError):
    """413: the body, the number of images or the pixels of one exceed the server's limit."""


class UnsupportedTypeError(ProblemError):
    """415: not an image of a type that the server reads."""


class InvalidOptionError(ProblemError):
    """422: an option is unknown or out of range."""


class InvalidImageError(ProblemError):
    """422: the image is damaged."""


class BusyError(ProblemError):
    """503: the server has no room, is shutting down, or its model failed."""


class DeadlineError(ProblemError):
    """504: the request's `timeout_ms`, or the server's own limit, passed."""


BY_STATUS: Mapping[int, type[ProblemError]] = {
    400: MalformedRequestError,
    401: UnauthorizedError,
    413: TooLargeError,
    415: UnsupportedTypeError,
    422: InvalidImageError,
    503: BusyError,
    504: DeadlineError,
}


def problem_of(
    document: Mapping[str, Any], status: int, retry_after_s: float | None = None
) -> ProblemError:
    """The error that a problem document, or the `error` of one image, stands for."""
    slug = str(document.get("type", "")).rpartition(":")[2]
    kind = InvalidOptionError if slug == "invalid-option" else BY_STATUS.get(status, ProblemError)
    return kind(
        status,
        str(document.get("title", "Error")),
        str(document.get("detail", "")),
        slug=slug,
        request_id=str(document.get("request_id", "")),
        retry_after_s=retry_after_s,
    )


@contextmanager
def needing(packages: str) -> Iterator[None]:
    """Say how to install what is missing here, where only the client is."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"this needs {packages} ({error})", name=error.name) from error
