"""Real Ray, where it is installed: a replica that is killed under load, a data set that goes on.

`RAY_PYTHON` may name an interpreter that has the extra `ray`.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.qa.rig.neighbours import PHOTO, fault_of
from benchmarks.qa.rig.programs import free_port
from benchmarks.qa.rig.service import children
from support.pictures import plain
from support.project import ROOT

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]

START_S = 300
CLIENTS = 6
IMAGES, BLOCK = 60, 5


def ray_python() -> str:
    named = os.environ.get("RAY_PYTHON")
    if named is None and find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install -c constraints.txt -e '.[ray]'")
    return named or sys.executable


def environment() -> dict[str, str]:
    # On a busy machine Ray's processes take longer to find each other than Ray allows.
    patient = {"RAY_raylet_start_wait_time_s": "300", "RAY_agent_register_timeout_ms": "300000"}
    return os.environ | {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"} | patient


@dataclass
class Asked:
    """A request, with the times in seconds at which it was sent and answered."""

    began: float
    status: int | str = "no answer"
    fault: str | None = None


@dataclass
class Load:
    """Clients that never pause, and their answers."""

    port: int
    asked: list[Asked] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        while not self.over.is_set():
            one = Asked(time.monotonic())
            self.asked.append(one)
            try:
                connection.request(
                    "POST", "/detect", PHOTO.read_bytes(), {"Content-Type": "image/jpeg"}
                )
                answer = connection.getresponse()
                one.status, body = answer.status, answer.read()
                if one.status == 200:
                    one.fault = fault_of(json.loads(body)["results"][0]["detections"])
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                one.status = repr(error)
        connection.close()


@contextmanager
def loaded(port: int) -> Iterator[Load]:
    load = Load(port)
    threads = [threading.Thread(target=load.ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.over.set()
        for thread in threads:
            thread.join()


@contextmanager
def replicas(log: Path) -> Iterator[tuple[int, int]]:
    """Two replicas under Ray Serve; gives the port and the process that began them."""
    port = free_port()
    command = [ray_python(), str(ROOT / "tests" / "support" / "ray_replicas.py"), str(port)]
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment()
        ) as process,
    ):
        try:
            lines = iter(process.stdout or [])
            assert any(line.strip() == b"ready" for line in lines), log.read_text()[-2000:]
            yield port, process.pid
        finally:
            process.communicate(timeout=120)


def replica_processes(pid: int) -> set[int]:
    found = set[int]()
    for child in children(pid):
        # One that ends meanwhile is none.
        with suppress(OSError):
            title = Path(f"/proc/{child}/cmdline").read_bytes().partition(b"\0")[0]
            if b"ServeReplica" in title:
                found.add(child)
    return found


def targets(port: int) -> list[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics-targets") as answer:
        return [address for each in json.load(answer) for address in each["targets"]]


def wait_for(condition: object, seconds: float = START_S) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator] # a function
        assert time.monotonic() < end
        time.sleep(0.2)


def test_a_replica_that_is_killed_under_load_takes_only_its_own_requests_with_it(
    tmp_path: Path,
) -> None:
    with replicas(tmp_path / "ray.log") as (port, pid):
        wait_for(lambda: len(targets(port)) == 2)
        for address in targets(port):
            with urllib.request.urlopen(f"http://{address}/metrics") as answer:
                assert b"yolox_ready 1.0" in answer.read()
        with loaded(port) as load:
            wait_for(lambda: len(load.asked) > 4 * CLIENTS)
            killed, stays = replica_processes(pid)
            os.kill(killed, signal.SIGKILL)
            at = time.monotonic()
            wait_for(lambda: len(replica_processes(pid) - {killed}) == 2)
            count = len(load.asked)
            wait_for(lambda: len(load.asked) > count + 4 * CLIENTS)
        assert stays in replica_processes(pid)
    lost = [one for one in load.asked if one.status != 200]
    assert [one for one in lost if one.began > at] == []
    # Each client had one request under way.
    assert len(lost) <= CLIENTS
    assert [one.fault for one in load.asked if one.fault] == []


def dataset(source: Path, output: Path, *flags: str) -> subprocess.Popen[bytes]:
    script = ROOT / "deploy" / "ray" / "detect_dataset.py"
    sizes = ["--block", str(BLOCK), "--device", "cpu", "--batch", "2"]
    command = [ray_python(), str(script), str(source), str(output), *sizes, *flags]
    return subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE)


def test_a_data_set_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "in").mkdir()
    photo = PHOTO.read_bytes()
    for number in range(IMAGES):
        (tmp_path / "in" / f"{number:03d}.jpg").write_bytes(photo)
    (tmp_path / "in" / "torn.jpg").write_bytes(plain(image_format="JPEG")[:300])
    out = tmp_path / "out"
    first = dataset(tmp_path / "in", out)
    wait_for(lambda: len([*out.glob("checkpoint/*.parquet")]) >= 2 or first.poll() is not None)
    assert first.poll() is None
    for pid in [*children(first.pid), first.pid]:
        os.kill(pid, signal.SIGKILL)
    first.communicate()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("results/*.parquet")}
    again = dataset(tmp_path / "in", out, "--resume", "--coco", str(tmp_path / "boxes.json"))
    _, told = again.communicate(timeout=START_S)
    assert again.returncode == 1, told.decode()[-2000:]
    assert f"{IMAGES + 1} images, 1 skipped, {3 * IMAGES} objects".encode() in told
    names = parquet.read_table(out / "results")["filename"].to_pylist()
    assert len(names) == len(set(names)) == IMAGES + 1
    # Files that had been written are still there as they were, but for one that was not whole.
    still = [path for path, time_ns in kept.items() if path.exists()]
    assert all(path.stat().st_mtime_ns == kept[path] for path in still)
    assert len(still) >= 2
    boxes = json.loads((tmp_path / "boxes.json").read_text())
    assert len(boxes["images"]) == IMAGES
    assert len(boxes["annotations"]) == 3 * IMAGES
