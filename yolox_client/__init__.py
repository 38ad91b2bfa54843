"""A client of a YOLOX server; it needs httpx2, and nothing of the server.

from yolox_client import Client

with Client("http://127.0.0.1:8000") as client:
    for found in client.detect("photo.jpg", confidence=0.3).detections:
        print(found.class_name, found.score, found.box)
"""

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
from yolox_client.retry import RetryPolicy

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
