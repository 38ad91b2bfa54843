"""A running application with a model repository, and what tests ask it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from service.http.app import create_app
from service.settings import Settings
from support.client import as_raw, labels
from support.pictures import plain
from support.repositories import WHITE

PHOTO = plain(WHITE)


class Served:
    """A running application, and what tests ask it."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.models: Any = client.app.running.models  # type: ignore[attr-defined]

    def answer(self, query: str = "") -> tuple[str, str]:
        response = as_raw(self.client, PHOTO, query)
        assert response.status_code == 200, response.text
        model = response.json()["model"]
        return model["name"], model["version"]

    def states(self) -> dict[tuple[str, str], str]:
        listed = self.client.get("/models").json()["models"]
        return {(each["name"], each["version"]): each["state"] for each in listed}

    def reason(self, name: str, version: str) -> str:
        for each in self.client.get("/models").json()["models"]:
            if (each["name"], each["version"]) == (name, version):
                return str(each["reason"])
        raise AssertionError("not listed")

    def digest(self) -> str:
        """SHA-256 of the loaded default model."""
        served = self.models.default
        return str(self.models._stock.loaded[served.name, served.version].digest)

    def call(self, name: str, *arguments: Any) -> None:
        assert self.client.portal is not None
        self.client.portal.call(getattr(self.models, name), *arguments)

    def loaded(self) -> set[tuple[str, str]]:
        return {key for key, state in self.states().items() if state == "READY"}

    def told(self) -> set[tuple[str, str]]:
        """The models of which the metrics tell any series."""
        pairs = set()
        for line in self.client.get("/metrics").text.splitlines():
            found = labels(line)
            if not line.startswith("#") and "version" in found and "model" in found:
                pairs.add((found["model"], found["version"]))
        return pairs


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends, "it never came"
        time.sleep(0.02)


@contextmanager
def repository(folder: Path, **settings: Any) -> Iterator[Served]:
    app = create_app(Settings(models=folder, device="cpu", **settings))
    with TestClient(app, raise_server_exceptions=False) as client:
        served = Served(client)
        served.call("refresh")
        yield served
