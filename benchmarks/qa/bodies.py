"""Request bodies in every form that the server takes."""

import base64
import json
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.qa.rig.asking import Ask

BOUNDARY: Final = "boundary0123456789"
JPEG: Final = {"Content-Type": "image/jpeg"}


def raw(content: bytes, query: str = "") -> Ask:
    """The bytes of one image."""
    return Ask(content, JPEG, query)


def form(contents: Sequence[bytes], fields: dict[str, str] | None = None) -> Ask:
    """A multipart form with images, and options as fields."""
    parts = [
        f'Content-Disposition: form-data; name="images"; filename="{number}.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n".encode()
        + content
        for number, content in enumerate(contents)
    ]
    parts += [
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()
        for name, value in (fields or {}).items()
    ]
    start = f"--{BOUNDARY}\r\n".encode()
    body = b"".join(start + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()
    return Ask(body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})


def as_json(contents: Sequence[bytes], **fields: Any) -> Ask:  # noqa: ANN401 - any JSON
    """A JSON document with images in base64, and options as fields."""
    images = [base64.b64encode(content).decode() for content in contents]
    document = json.dumps({"images": images, **fields}).encode()
    return Ask(document, {"Content-Type": "application/json"})
