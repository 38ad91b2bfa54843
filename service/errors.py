"""The server's errors: one hierarchy, each class with its HTTP status and title."""

from typing import ClassVar, Self


class StartupError(Exception):
    """The server cannot start; the message is one line for the operator."""


class ServiceError(Exception):
    """A request, or one image of it, cannot be answered as asked.

    Attributes:
        status: The HTTP status.
        title: Short name of the problem; the same for every instance.
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
        """Headers to send with this problem."""
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}


class MalformedRequestError(ServiceError):
    """The body cannot be parsed, or holds no image."""

    status = 400
    title = "Malformed request"
    slug = "malformed-request"


class UnauthorizedError(ServiceError):
    """The server requires an API key, and the request's is missing or wrong."""

    status = 401
    title = "API key missing or wrong"
    slug = "unauthorized"

    @property
    def headers(self) -> dict[str, str]:
        """The authentication scheme that the server accepts."""
        return {"WWW-Authenticate": "Bearer"}


class OriginRefusedError(ServiceError):
    """A page of this origin may not call the server, or not in this way."""

    status = 403
    title = "Cross-origin request refused"
    slug = "origin-refused"


class ForbiddenError(ServiceError):
    """The server's settings do not allow this to anybody."""

    status = 403
    title = "Not allowed"
    slug = "forbidden"


class NotAcceptableError(ServiceError):
    """The client asked for a picture where the server can only answer with JSON."""

    status = 406
    title = "Not acceptable"
    slug = "not-acceptable"


class TooLargeError(ServiceError):
    """The body, the number of images or an image's pixels exceed a limit."""

    status = 413
    title = "Too large"
    slug = "too-large"


class UnsupportedTypeError(ServiceError):
    """The server does not accept content of this type."""

    status = 415
    title = "Unsupported type"
    slug = "unsupported-type"


class UnsupportedCodingError(UnsupportedTypeError):
    """The server cannot decompress the body."""

    @property
    def headers(self) -> dict[str, str]:
        """The codings that it can."""
        return {"Accept-Encoding": "gzip, deflate"}


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
    """The queue has no free place; try again later."""

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


class NotFiniteError(ModelFailedError):
    """The model ran, and its output for an image holds values that are no numbers."""


class DeadlineError(ServiceError):
    """The request's deadline passed before its answer was ready."""

    status = 504
    title = "Deadline passed"
    slug = "deadline-passed"

    @classmethod
    def of_image(cls) -> Self:
        """The error of an image that is given up, wherever on its way."""
        return cls(
            "the deadline passed before the image was done; give the request more time, or send "
            "fewer images"
        )


class NotFoundError(ServiceError):
    """Nothing is at this path."""

    status = 404
    title = "Not found"
    slug = "not-found"


class ModelNotFoundError(NotFoundError):
    """There is no model of this name, or no such version of it."""

    title = "Model not found"
    slug = "model-not-found"


class ModelLoadError(ServiceError):
    """The model exists, and is not loaded: its file cannot be served, or a call unloaded it."""

    status = 503
    title = "Model not available"
    slug = "model-not-available"


class ModelInUseError(ServiceError):
    """The model cannot be unloaded, for requests that name none need it."""

    status = 409
    title = "Model in use"
    slug = "model-in-use"


class MethodNotAllowedError(ServiceError):
    """The path exists, but takes another method."""

    status = 405
    title = "Method not allowed"
    slug = "method-not-allowed"


class NotAliveError(ServiceError):
    """Only a restart of the server would help; only the liveness check answers so."""

    status = 503
    title = "Not alive"
    slug = "not-alive"


class NotReadyError(ServiceError):
    """The server should get no new work at present; only the readiness check answers so."""

    status = 503
    title = "Not ready"
    slug = "not-ready"


class HeadTooLargeError(ServiceError):
    """The request line and headers are too long."""

    status = 431
    title = "Head too large"
    slug = "head-too-large"


class TransferCodingError(ServiceError):
    """The body is encoded for transfer in a way that the server does not decode."""

    status = 501
    title = "Transfer coding not understood"
    slug = "unsupported-coding"


class UnsupportedVersionError(ServiceError):
    """The request is in a version of HTTP that the server does not speak."""

    status = 505
    title = "HTTP version not supported"
    slug = "unsupported-version"


class TooManyConnectionsError(ServiceError):
    """The server has as many connections as it may have; try again later."""

    status = 503
    title = "Too many connections"
    slug = "too-many-connections"


class UnreadAnswersError(ServiceError):
    """The answers that nobody has read yet have reached their limit; try again later."""

    status = 503
    title = "Too many unread answers"
    slug = "too-many-unread-answers"


class BusyError(ServiceError):
    """The request bodies in memory have reached their limit; try again later."""

    status = 503
    title = "Too many uploads"
    slug = "too-many-uploads"
