"""A running server as a detector to measure."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import httpx2

from model_export.errors import ModelExportError
from model_export.measure.evaluate import Found

T = TypeVar("T")

TIMEOUT_S: Final = 60.0
# Idle connections are closed before the server closes them (5 s is common): a request sent at
# that moment would fail.
LIMITS: Final = httpx2.Limits(keepalive_expiry=1.0)
MAX_TRIES: Final = 10
MAX_WAIT_S: Final = 30.0
DEFAULT_WAIT_S: Final = 1.0


def connect(server: str, api_key: str | None) -> httpx2.Client:
    """A client of a server's address; the caller closes it.

    Raises:
        ModelExportError: The address is not a URL.
    """
    headers = {"X-API-Key": api_key} if api_key else {}
    try:
        return httpx2.Client(base_url=server, headers=headers, timeout=TIMEOUT_S, limits=LIMITS)
    except httpx2.InvalidURL as error:
        raise ModelExportError(f"{server} is not a URL: {error}") from error


class ServerDetector:
    """Sends each image to `POST /detect`, and waits when the server is busy.

    Args:
        client: With the server's address, and the API key if there is one.
        options: Query parameters of each request.
        sleep: Waits for a number of seconds.
    """

    def __init__(
        self,
        client: httpx2.Client,
        options: Mapping[str, str],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._options = dict(options)
        self._sleep = sleep

    def class_names(self) -> tuple[str, ...]:
        """The names of the served model's classes."""
        response = self._send(self._client.build_request("GET", "/model"))
        return _parse(response, lambda body: tuple(map(str, body["contract"]["class_names"])))

    def detect(self, image: bytes) -> Sequence[Found]:
        """Find objects in one image.

        Raises:
            ModelExportError: The server cannot be reached, stays busy, or refuses the image.
        """
        request = self._client.build_request(
            "POST",
            "/detect",
            params=self._options,
            content=image,
            headers={"Content-Type": "application/octet-stream"},
        )
        return _parse(
            self._send(request),
            lambda body: [_found(item) for item in body["results"][0]["detections"]],
        )

    def _send(self, request: httpx2.Request) -> httpx2.Response:
        """The answer to a request, which is repeated while the server is busy."""
        for _ in range(MAX_TRIES - 1):
            response = self._send_once(request)
            if response.status_code != httpx2.codes.SERVICE_UNAVAILABLE:
                break
            self._sleep(_retry_after_s(response))
        else:
            response = self._send_once(request)
        if not response.is_success:
            raise ModelExportError(
                f"{request.url.path} answers {response.status_code}: {_reason(response)}"
            )
        return response

    def _send_once(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return self._client.send(request)
        except httpx2.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise ModelExportError(f"no answer from {request.url}: {reason}") from error


def _retry_after_s(response: httpx2.Response) -> float:
    """Seconds to wait, at most `MAX_WAIT_S`; a date is ignored, and the default taken."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), MAX_WAIT_S) if text.isdecimal() else DEFAULT_WAIT_S


def _reason(response: httpx2.Response) -> str:
    """The detail of a problem document; of any other answer, its text."""
    try:
        return str(response.json()["detail"])
    except (ValueError, LookupError, TypeError):
        return response.text[:200] or response.reason_phrase


def _parse(response: httpx2.Response, read: Callable[[Any], T]) -> T:
    try:
        return read(response.json())
    except (ValueError, LookupError, TypeError) as error:
        raise ModelExportError(
            f"{response.url} does not answer as this service does: {error!r}"
        ) from error


def _found(item: Mapping[str, Any]) -> Found:
    box = item["box"]
    return Found(
        class_name=str(item["class_name"]),
        score=float(item["score"]),
        box_xyxy=(float(box["x1"]), float(box["y1"]), float(box["x2"]), float(box["y2"])),
    )
