"""Several processes behind one port: who dies is replaced, and the metrics are those of all."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from support.model_files import model_file
from support.onnx_models import tiny_yolox_model
from support.pictures import plain
from support.servers import SIGINT, SIGTERM, Server, failed_start, server

WORKERS = ("--workers", "2", "--drain-grace-s", "0")
DETECTED = 'yolox_requests_total{endpoint="/detect",status="200"}'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_file(tmp_path, tiny_yolox_model())


class Workers:
    """A server of two, of which a test can let just one take connections."""

    def __init__(self, running: Server) -> None:
        self.server = running
        self.pids = [self.next_pid(), self.next_pid()]

    def next_pid(self) -> int:
        return int(self.server.wait_for("worker serves")["process"])

    @contextlib.contextmanager
    def only(self, pid: int) -> Iterator[None]:
        """All others are stopped meanwhile, so that this one answers."""
        others = [other for other in self.pids if other != pid]
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            yield
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)

    def detect(self, times: int) -> None:
        for _ in range(times):
            headers = {"Content-Type": "image/png", "Connection": "close"}
            answer = httpx2.post(f"{self.server.url}/detect", content=plain(255), headers=headers)
            assert answer.status_code == 200

    def metrics(self) -> dict[str, float]:
        return metrics_of(self.server.url)


def metrics_of(url: str) -> dict[str, float]:
    """Every sample by its name and labels, as whoever answers tells them."""
    text = httpx2.get(f"{url}/metrics", headers={"Connection": "close"}).text
    samples = [
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    ]
    told = {_series(sample): sample.value for sample in samples}
    assert len(told) == len(samples), "a series came twice"
    return told


def _series(sample: Sample) -> str:
    labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
    return f"{sample.name}{{{labels}}}" if labels else sample.name


@pytest.fixture
def workers(model: Path) -> Iterator[Workers]:
    with server(model, *WORKERS) as running:
        yield Workers(running)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """One for all tests that end nothing."""
    model = model_file(tmp_path_factory.mktemp("lasting"), tiny_yolox_model())
    with server(model, *WORKERS) as running:
        yield Workers(running)


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a process that is no child of this one."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            assert select.select([handle], [], [], 60)[0]
        finally:
            os.close(handle)


def test_each_process_tells_the_counts_of_all(lasting: Workers) -> None:
    first, second = lasting.pids
    with lasting.only(first):
        lasting.detect(5)
    with lasting.only(second):
        lasting.detect(7)
    for pid in lasting.pids:
        with lasting.only(pid):
            told = lasting.metrics()
            assert told[DETECTED] == 12
            assert told['yolox_request_duration_seconds_count{endpoint="/detect"}'] == 12
            assert told['yolox_images_total{model="tiny",outcome="ok",version="1"}'] == 12
            assert told["yolox_workers"] == 2
            assert told["yolox_queue_capacity_images"] == 2 * 256
            assert told["yolox_requests_in_flight"] == 0


def test_counts_outlive_the_death_of_a_process_and_its_gauges_do_not(workers: Workers) -> None:
    first, second = workers.pids
    with workers.only(first):
        workers.detect(5)
    before = workers.metrics()
    os.kill(first, signal.SIGKILL)
    workers.server.wait_for("worker died")
    alone = workers.metrics()
    assert alone[DETECTED] == 5
    assert alone["yolox_workers"] == 1
    workers.pids = [second, workers.next_pid()]
    with workers.only(workers.pids[1]):
        workers.detect(3)
        after = workers.metrics()
    assert after[DETECTED] == 8
    assert after["yolox_workers"] == 2
    assert after["yolox_worker_starts_total"] == 3
    assert after["process_cpu_seconds_total"] >= before["process_cpu_seconds_total"]


def test_a_server_of_two_that_are_ready_is_ready(lasting: Workers) -> None:
    told = lasting.metrics()
    while told["yolox_ready"] != 1:
        told = lasting.metrics()
    assert httpx2.get(f"{lasting.server.url}/health/ready").status_code == 200


def connections_of(pid: int) -> int:
    """How many TCP connections a process has open."""
    opened = {str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()}
    lines = map(str.split, Path(f"/proc/{pid}/net/tcp").read_text().splitlines())
    return sum(line[3] == "01" and f"socket:[{line[9]}]" in opened for line in lines)


def test_connections_are_shared_evenly(workers: Workers) -> None:
    clients = [httpx2.Client(base_url=workers.server.url, timeout=60) for _ in range(20)]
    with contextlib.ExitStack() as opened:
        for client in clients:
            opened.enter_context(client)
            assert client.get("/health/live").status_code == 200
        few, many = sorted(connections_of(pid) for pid in workers.pids)
        assert few + many == 20
        # Ten each, but for moments in which one of them did not get a CPU.
        assert few >= 5


def test_a_worker_that_hangs_with_few_connections_keeps_none_from_the_others(
    workers: Workers,
) -> None:
    first, _ = workers.pids
    with contextlib.ExitStack() as opened, workers.only(first):
        for _ in range(5):
            client = opened.enter_context(httpx2.Client(base_url=workers.server.url, timeout=60))
            assert client.get("/health/live").status_code == 200
        assert connections_of(first) == 5


def test_process_metrics_are_those_of_supervisor_and_workers(lasting: Workers) -> None:
    told = lasting.metrics()
    resident = sum(
        int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        for pid in (lasting.server.process.pid, *lasting.pids)
    )
    assert told["process_resident_memory_bytes"] == pytest.approx(resident, rel=0.1)
    assert told["process_cpu_seconds_total"] > 0
    assert told["process_open_fds"] < told["process_max_fds"]


def test_a_worker_that_cannot_start_again_harms_no_other(workers: Workers, model: Path) -> None:
    moved = model.rename(model.with_suffix(".away"))
    os.kill(workers.pids[0], signal.SIGKILL)
    workers.server.wait_for("worker could not start")
    workers.detect(1)
    moved.rename(model)
    workers.next_pid()
    assert workers.metrics()["yolox_workers"] == 2


def test_a_second_signal_ends_all_on_the_spot(model: Path) -> None:
    with server(model, "--workers", "2", "--drain-grace-s", "600") as running:
        pids = Workers(running).pids
        running.send(SIGTERM)
        while running.client.get("/health/ready").status_code == 200:
            running.client.close()
            running.client = httpx2.Client(base_url=running.url, timeout=60)
        running.send(SIGINT)
        assert running.exit_code() == 1
        for pid in pids:
            assert not Path(f"/proc/{pid}").exists()


def test_workers_end_when_their_supervisor_is_killed_and_leave_no_files(
    model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    running = Server("--model", str(model), *WORKERS, environment={"TMPDIR": str(folder)})
    with contextlib.closing(running):
        pids = Workers(running).pids
        assert len(list(folder.iterdir())) == 1
        running.send(signal.SIGKILL)
        for pid in pids:
            wait_until_gone(pid)
    assert list(folder.iterdir()) == []


def test_sigterm_ends_all_with_exit_code_0_and_leaves_no_files(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    environment = {"TMPDIR": str(folder)}
    running = Server("--model", str(model), *WORKERS, environment=environment)
    with contextlib.closing(running):
        pids = Workers(running).pids
        assert list(folder.glob("yolox-metrics-*/*.db"))
        running.send(SIGTERM)
        assert running.exit_code() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert list(folder.iterdir()) == []


def test_no_model_is_one_error_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code, complaint = failed_start(*WORKERS, "--model", str(tmp_path / "none.onnx"))
    assert code == 1
    assert list(tmp_path.iterdir()) == []
    assert complaint.count("error: there is no model file") == 1
    assert "Traceback" not in complaint


def test_a_port_in_use_is_one_line_and_exit_code_1(lasting: Workers, model: Path) -> None:
    port = lasting.server.url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "service", "--port", port, "--model", str(model), *WORKERS],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Address already in use" in done.stderr


def test_one_process_writes_no_metric_files(model: Path, tmp_path: Path) -> None:
    with contextlib.closing(
        Server("--model", str(model), environment={"TMPDIR": str(tmp_path)})
    ) as running:
        assert running.client.get("/metrics").status_code == 200
        assert list(tmp_path.glob("yolox-metrics-*")) == []


def test_a_worker_serves_no_other_model_than_the_rest(
    workers: Workers, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    blind = tiny_yolox_model(objectness_logit=-99.0)
    model_file(tmp_path_factory.mktemp("other"), blind).replace(model)
    os.kill(workers.pids[0], signal.SIGKILL)
    workers.server.wait_for("worker could not start")
    assert any("has changed since the other workers" in line for line in workers.server.events)
    answers = [
        httpx2.post(
            f"{workers.server.url}/detect",
            content=plain(255),
            headers={"Content-Type": "image/png", "Connection": "close"},
        )
        for _ in range(6)
    ]
    assert all(answer.json()["results"][0]["detections"] for answer in answers)


@pytest.mark.heavy
def test_a_worker_that_hangs_is_replaced(workers: Workers) -> None:
    first, second = workers.pids
    os.kill(first, signal.SIGSTOP)
    assert workers.server.wait_for("worker hangs")["process"] == first
    workers.server.wait_for("worker died")
    assert workers.next_pid() not in (first, second)
    workers.detect(4)
    assert workers.metrics()["yolox_workers"] == 2
    os.kill(second, signal.SIGSTOP)
    workers.server.send(SIGTERM)
    assert workers.server.exit_code() == 1


def test_workers_end_with_a_supervisor_that_heard_them_no_more(workers: Workers) -> None:
    workers.server.send(signal.SIGSTOP)
    # Signs of life, which come every second, lie unread when it is killed.
    time.sleep(2.5)
    workers.server.send(signal.SIGKILL)
    for pid in workers.pids:
        wait_until_gone(pid)
