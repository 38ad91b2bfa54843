"""A client of a YOLOX server; it needs httpx2, and nothing of the server.

from yolox_client import Client

with Client("http://127.0.0.1:8000") as client:
    for found in client.detect("photo.jpg", confidence=0.3).detections:
        print(found.class_name, found.score, found.box)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yolox_client.async_client import AsyncClient
    from yolox_client.client import Client
    from yolox_client.coco import coco_dataset
    from yolox_client.errors import (
        BusyError,
        ClientDeadlineError,
        DeadlineError,
        InvalidImageError,
        InvalidOptionError,
        MalformedRequestError,
        ProblemError,
        ServerUnreachableError,
        TooLargeError,
        UnauthorizedError,
        UnexpectedAnswerError,
        UnsupportedTypeError,
        UnusableImageError,
        YoloxClientError,
    )
    from yolox_client.results import Box, Detection, ImageResult, ModelRef
    from yolox_client.transport.retry import RetryPolicy

__all__ = [
    "AsyncClient",
    "Box",
    "BusyError",
    "Client",
    "ClientDeadlineError",
    "DeadlineError",
    "Detection",
    "ImageResult",
    "InvalidImageError",
    "InvalidOptionError",
    "MalformedRequestError",
    "ModelRef",
    "ProblemError",
    "RetryPolicy",
    "ServerUnreachableError",
    "TooLargeError",
    "UnauthorizedError",
    "UnexpectedAnswerError",
    "UnsupportedTypeError",
    "UnusableImageError",
    "YoloxClientError",
    "coco_dataset",
]

# The server draws with this package where httpx2 is not installed, so nothing is imported before
# it is asked for.
_PLACES = {
    "AsyncClient": "yolox_client.async_client",
    "Box": "yolox_client.results",
    "BusyError": "yolox_client.errors",
    "Client": "yolox_client.client",
    "ClientDeadlineError": "yolox_client.errors",
    "DeadlineError": "yolox_client.errors",
    "Detection": "yolox_client.results",
    "ImageResult": "yolox_client.results",
    "InvalidImageError": "yolox_client.errors",
    "InvalidOptionError": "yolox_client.errors",
    "MalformedRequestError": "yolox_client.errors",
    "ModelRef": "yolox_client.results",
    "ProblemError": "yolox_client.errors",
    "RetryPolicy": "yolox_client.transport.retry",
    "ServerUnreachableError": "yolox_client.errors",
    "TooLargeError": "yolox_client.errors",
    "UnauthorizedError": "yolox_client.errors",
    "UnexpectedAnswerError": "yolox_client.errors",
    "UnsupportedTypeError": "yolox_client.errors",
    "UnusableImageError": "yolox_client.errors",
    "YoloxClientError": "yolox_client.errors",
    "coco_dataset": "yolox_client.coco",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
