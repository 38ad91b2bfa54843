"""The application in this process, with a fake engine, and helpers to check its answers."""

import base64
import contextlib
import re
from collections.abc import Iterator
from typing import Any

from starlette.testclient import TestClient

from service.http.app import create_app
from service.settings import Settings
from support.engines import FakeEngine

SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
PNG = {"Content-Type": "image/png"}


@contextlib.contextmanager
def serving(engine: FakeEngine | None = None, **settings: Any) -> Iterator[TestClient]:
    engine = engine or FakeEngine()
    app = create_app(Settings(**settings), engine)
    with TestClient(app, raise_server_exceptions=False) as client:
        try:
            yield client
        finally:
            engine.gate.set()


def problem(response: Any, status: int, slug: str) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert set(body) == {"type", "title", "status", "detail", "request_id"}
    assert body["type"] == f"urn:problem-type:yolox-serve:{slug}"
    assert body["status"] == status
    assert body["request_id"] == response.headers["x-request-id"]
    return str(body["detail"])


def metric(client: TestClient, line: str) -> float:
    """The sum of the series of a name that have all the labels that `line` gives."""
    wanted = SAMPLE.fullmatch(f"{line} 0")
    assert wanted is not None, line
    total = 0.0
    for found in SAMPLE.finditer(client.get("/metrics").text):
        if found[1] == wanted[1] and labels(wanted[2]).items() <= labels(found[2]).items():
            total += float(found[3])
    return total


def labels(text: str | None) -> dict[str, str]:
    return dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', text or ""))


def boxes(response: Any) -> list[Any]:
    assert response.status_code == 200, response.text
    return [result["detections"] for result in response.json()["results"]]


def as_raw(client: TestClient, content: bytes, query: str = "") -> Any:
    return client.post(f"/detect{query}", content=content, headers=PNG)


def as_multipart(client: TestClient, content: bytes, query: str = "") -> Any:
    return client.post(f"/detect{query}", files={"images": ("a.png", content)})


def as_json(client: TestClient, content: bytes, query: str = "") -> Any:
    return client.post(f"/detect{query}", json={"images": [base64.b64encode(content).decode()]})
