"""Versions that change under load: no request fails, and each answer is whole, of one version."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from support.pictures import plain
from support.repositories import WHITE, write_garbage, write_model, write_version
from support.servers import Server

PHOTO = plain(WHITE)


class Load:
    """Clients that send the same picture in a loop, and note what each answer says."""

    def __init__(self, url: str, clients: int = 4) -> None:
        self._url = url
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(clients)]
        self.answers: Counter[tuple[int, str, str]] = Counter()
        self.errors: list[Exception] = []

    def _send(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=30) as client:
            while not self._ended.is_set():
                try:
                    response = client.post("/detect", content=PHOTO)
                    version, boxes = "", response.text
                    if response.status_code == 200:
                        body = response.json()
                        version = body["model"]["version"]
                        boxes = str(body["results"][0]["detections"])
                    self.answers[response.status_code, version, boxes] += 1
                except httpx2.HTTPError as error:
                    self.errors.append(error)

    @contextmanager
    def running(self) -> Iterator["Load"]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join()

    def versions(self) -> set[str]:
        """The versions that have answered; all answers were good, and one's are all the same."""
        assert not self.errors
        answers = dict(self.answers)
        assert {status for status, _, _ in answers} <= {200}
        versions = [version for _, version, _ in answers]
        assert len(versions) == len(set(versions)), "one version gave two different answers"
        return set(versions)


def wait_for(load: Load, versions: set[str], more: int = 20) -> None:
    """Wait until these versions have answered, and then for more answers."""
    ends = time.monotonic() + 30
    while not load.versions() >= versions:
        assert time.monotonic() < ends, load.versions()
        time.sleep(0.05)
    goal = load.answers.total() + more
    while load.answers.total() < goal:
        assert time.monotonic() < ends
        time.sleep(0.05)


@contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    server = Server(*arguments)
    try:
        yield server
    finally:
        server.close()


def test_a_new_version_and_a_bad_one_under_load_fail_no_request(tmp_path: Path) -> None:
    write_version(tmp_path, "cats", "1")
    with serving("--models", str(tmp_path)) as server, Load(server.url).running() as load:
        wait_for(load, {"1"})
        write_version(tmp_path, "cats", "2", logit=-3)
        server.send(signal.SIGHUP)
        wait_for(load, {"1", "2"})
        write_garbage(tmp_path, "cats", "3")
        server.send(signal.SIGHUP)
        server.wait_for("a model cannot be served")
        wait_for(load, {"2"})
        assert server.client.post("/detect", content=PHOTO).json()["model"]["version"] == "2"
    assert load.versions() == {"1", "2"}
    assert load.answers.total() > 60


def pids_of(server: Server) -> list[int]:
    """The processes of the workers, as their supervisor's log has them."""
    return [server.wait_for("worker serves")["process"] for _ in range(2)]


def test_all_workers_change_to_one_file_and_one_that_is_replaced_too(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_model(path, contract_version="1")
    with serving("--model", str(path), "--workers", "2") as server:
        pids = pids_of(server)
        with Load(server.url).running() as load:
            wait_for(load, {"1"})
            write_model(path, logit=-3, contract_version="2")
            server.send(signal.SIGHUP)
            for _ in pids:
                server.wait_for("model loaded")
            # Only what is asked from now on must be of the new file.
            load.answers.clear()
            wait_for(load, {"2"})
        assert load.versions() == {"1", "2"} or load.versions() == {"2"}
        with Load(server.url).running() as after:
            wait_for(after, {"2"}, more=100)
        assert after.versions() == {"2"}
        # The worker that takes a dead one's place loads what the others serve.
        os.kill(pids[0], signal.SIGKILL)
        server.wait_for("worker serves")
        with Load(server.url).running() as last:
            wait_for(last, {"2"}, more=50)
        assert last.versions() == {"2"}


@pytest.mark.parametrize("workers", [2])
def test_workers_drop_a_replaced_version_s_series(tmp_path: Path, workers: int) -> None:
    write_version(tmp_path, "cats", "1")
    with serving("--models", str(tmp_path), "--workers", str(workers)) as server:
        pids_of(server)
        server.client.post("/detect", content=PHOTO)
        assert 'model="cats",version="1"' in server.client.get("/metrics").text.replace(
            'outcome="ok",', ""
        )
        write_version(tmp_path, "cats", "2", logit=-3)
        server.send(signal.SIGHUP)
        for _ in range(workers):
            server.wait_for("model unloaded")
        told = server.client.get("/metrics").text
        assert 'version="2"' in told
        assert 'model="cats",provider="CPUExecutionProvider",version="1"' not in told
