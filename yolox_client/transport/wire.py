"""How a request is written for httpx2, and what its failures mean."""

from collections.abc import Sequence
from typing import Any, Final

import httpx2

from yolox_client.images import ImageFile
from yolox_client.transport.exchange import Call, Failure

# Idle connections are closed before the server closes them (5 s is common): a request sent at
# that moment would fail.
LIMITS: Final = httpx2.Limits(keepalive_expiry=1.0)
CONNECT_S: Final = 10.0


def settings_of(url: str, api_key: str | None) -> dict[str, Any]:
    """The arguments of both of httpx2's clients.

    Raises:
        ValueError: The address is not one.
    """
    try:
        base = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ValueError(f"{url!r} is not an address: {error}") from error
    if base.scheme not in ("http", "https") or not base.host:
        raise ValueError(f"{url!r} is not an address; write it like http://127.0.0.1:8000")
    headers = {"X-API-Key": api_key} if api_key else {}
    return {"base_url": base, "headers": headers, "limits": LIMITS}


def written(call: Call, timeout_s: float) -> dict[str, Any]:
    """The arguments of httpx2's `stream`."""
    fields: dict[str, Any] = {
        "method": call.method,
        "url": call.path,
        "params": list(call.query),
        "headers": {"Accept": call.accept},
        "timeout": httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S)),
    }
    if len(call.files) == 1:
        fields["headers"]["Content-Type"] = "application/octet-stream"
        fields["content"] = call.files[0].content
    elif call.files:
        form = _form(call.files)
        fields["headers"]["Content-Type"] = form.headers["Content-Type"]
        fields["content"] = form.read()
    return fields


def _form(files: Sequence[ImageFile]) -> httpx2.Request:
    """A form of several images, whose body is read at once: as a stream it takes many writes."""
    kind = "application/octet-stream"
    parts = [("images", (file.filename or "image", file.content, kind)) for file in files]
    return httpx2.Request("POST", "http://form", files=parts)


def failure(error: Exception, url: httpx2.URL) -> Failure:
    """Why no answer came."""
    reason = str(error) or type(error).__name__
    late = isinstance(error, TimeoutError | httpx2.ReadTimeout | httpx2.WriteTimeout)
    return Failure(f"no answer from {url}: {reason}", late)


NO_ANSWER: Final = (httpx2.TransportError, TimeoutError)
