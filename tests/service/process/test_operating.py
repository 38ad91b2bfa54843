"""A real server as operators set it up: unix socket, port of the metrics, keys, hangups."""

import contextlib
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from support.model_files import model_file
from support.onnx_models import tiny_yolox_model
from support.pictures import plain
from support.servers import SIGTERM, Server

ONE, TWO = (), ("--workers", "2")
AT_ONCE = ("--drain-grace-s", "0")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("model"), tiny_yolox_model())


def status(server: Server, key: str) -> int:
    headers = {"X-API-Key": key, "Connection": "close"}
    return server.client.get("/model", headers=headers).status_code


@pytest.mark.parametrize("workers", [ONE, TWO], ids=["one", "two"])
def test_it_serves_on_a_unix_socket_with_metrics_on_a_port_and_keys_that_change(
    model: Path, tmp_path: Path, workers: tuple[str, ...]
) -> None:
    path, keys = tmp_path / "s", tmp_path / "keys"
    keys.write_text("old\n")
    metrics = free_port()
    flags = ("--unix-socket", str(path), "--metrics-port", str(metrics), "--api-key-file")
    arguments = ("--model", str(model), *AT_ONCE, *workers, *flags, str(keys))
    with contextlib.closing(Server(*arguments)) as running:
        if workers:
            # A hangup that comes before the workers serve waits for them.
            keys.write_text("new\n")
            running.send(signal.SIGHUP)
            for _ in range(2):
                running.wait_for("worker serves")
        headers = {"X-API-Key": "new" if workers else "old", "Content-Type": "image/png"}
        sent = running.client.post("/detect", content=plain(255), headers=headers)
        assert sent.json()["results"][0]["detections"]
        line = running.wait_for("request")
        assert (line["client"], line["images"], line["model"]) == ("unix", 1, "tiny@1")
        assert running.client.get("/metrics").status_code == 404

        told = httpx2.get(f"http://127.0.0.1:{metrics}/metrics")
        assert 'yolox_requests_total{endpoint="/detect",status="200"} 1.0' in told.text
        assert told.headers["x-content-type-options"] == "nosniff"
        other = httpx2.get(f"http://127.0.0.1:{metrics}/model")
        assert (other.status_code, other.json()["title"]) == (404, "Not found")

        if not workers:
            keys.write_text("new\n")
            running.send(signal.SIGHUP)
            running.wait_for("the API keys were read again")
        assert [status(running, key) for key in ("old", "new")] == [401, 200]
        keys.write_text("")
        running.send(signal.SIGHUP)
        assert "no API key" in running.wait_for("the API keys stay as they were")["reason"]
        assert [status(running, key) for key in ("old", "new")] == [401, 200]
        running.send(SIGTERM)
        assert running.exit_code() == 0
        assert not path.exists()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize("workers", [ONE, TWO], ids=["one", "two"])
def test_what_keeps_it_from_listening_is_one_line_before_any_model_is_loaded(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    done = subprocess.run(
        [sys.executable, "-m", "service", "--unix-socket", str(path), *workers],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: cannot listen on unix:{path}: a file that is no socket")
    assert done.stderr.count("\n") == 1


def test_keys_that_cannot_be_read_are_one_line_before_any_model_is_loaded(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service", "--api-key-file", str(tmp_path / "none"), "--port", "0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"error: cannot read the API keys in {tmp_path / 'none'}: No such file or directory\n"
    )
