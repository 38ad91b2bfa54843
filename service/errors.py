"""The hierarchy of expected errors, each class with its HTTP status and title."""

from typing import ClassVar


class StartupError(Exception):
    """The server cannot start; the message is one line for the operator."""


class ServiceError(Exception):
    """The server cannot answer a request, or one image of it, as asked.

    Attributes:
        status: The HTTP status.
        title: The kind of problem, the same for every instance.
        slug: Last part of the problem's `type`.
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    slug: ClassVar[str] = "internal-error"

    def __init__(self, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """Headers that belong to this problem."""
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}


class MalformedRequestError(ServiceError):
    """The body cannot be parsed, or holds no image."""

    status = 400
    title = "Malformed request"
    slug = "malformed-request"


class UnauthorizedError(ServiceError):
    """An API key is configured, and the request's is missing or wrong."""

    status = 401
    title = "API key missing or wrong"
    slug = "unauthorized"

    @property
    def headers(self) -> dict[str, str]:
        """The scheme a client may use."""
        return {"WWW-Authenticate": "Bearer"}


class NotAcceptableError(ServiceError):
    """The client asked for a picture where the only answer is JSON."""

    status = 406
    title = "Not acceptable"
    slug = "not-acceptable"


class TooLargeError(ServiceError):
    """The body, the number of images or an image's pixels exceed a limit."""

    status = 413
    title = "Too large"
    slug = "too-large"


class UnsupportedTypeError(ServiceError):
    """The server does not accept this content type."""

    status = 415
    title = "Unsupported type"
    slug = "unsupported-type"


class InvalidOptionError(ServiceError):
    """An option is unknown or out of its range."""

    status = 422
    title = "Invalid option"
    slug = "invalid-option"


class InvalidImageError(ServiceError):
    """An image of an accepted type cannot be decoded."""

    status = 422
    title = "Image cannot be decoded"
    slug = "invalid-image"


class ClientLeftError(ServiceError):
    """The client closed the connection; nobody reads this answer."""

    status = 499
    title = "Client closed the request"
    slug = "client-left"


class QueueFullError(ServiceError):
    """The queue is full; the client may try again later."""

    status = 503
    title = "Queue full"
    slug = "queue-full"


class DrainingError(ServiceError):
    """The server is shutting down; another replica will answer."""

    status = 503
    title = "Shutting down"
    slug = "draining"


class ModelFailedError(ServiceError):
    """The model could not run."""

    status = 503
    title = "Model failed"
    slug = "model-failed"


class DeadlineError(ServiceError):
    """The request's deadline passed before its answer was ready."""

    status = 504
    title = "Deadline passed"
    slug = "deadline-passed"


class NotFoundError(ServiceError):
    """There is nothing at this path."""

    status = 404
    title = "Not found"
    slug = "not-found"


class MethodNotAllowedError(ServiceError):
    """The path exists but does not accept this method."""

    status = 405
    title = "Method not allowed"
    slug = "method-not-allowed"


class NotReadyError(ServiceError):
    """The readiness check fails: balancers should send no new work."""

    status = 503
    title = "Not ready"
    slug = "not-ready"


class HeadTooLargeError(ServiceError):
    """The request line and headers are too long."""

    status = 431
    title = "Head too large"
    slug = "head-too-large"


class BusyError(ServiceError):
    """Request bodies in memory have reached their limit; the client may try again later."""

    status = 503
    title = "Too many uploads"
    slug = "too-many-uploads"
