"""The server as an operator runs it: a process, its signals, its exit code."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import pytest

from support.model_files import model_file
from support.onnx_models import tiny_yolox_model
from support.pictures import plain
from support.servers import SIGINT, SIGTERM, Server, failed_start, server

PNG = {"Content-Type": "image/png"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_file(tmp_path, tiny_yolox_model())


@pytest.fixture
def running(model: Path) -> Iterator[Server]:
    with server(model, "--drain-grace-s", "1") as running:
        yield running


def test_a_server_answers_and_says_what_it_runs_on(running: Server) -> None:
    assert running.client.get("/health/ready").status_code == 200
    body = running.client.post("/detect", content=plain(255), headers=PNG).json()
    assert body["results"][0]["detections"]
    assert body["model"]["provider"] == "CPUExecutionProvider"
    assert any("CPUExecutionProvider" in line for line in running.events)


class DrainClient:
    """A client that sends without a pause until the port is closed.

    Attributes:
        answered: How many requests were answered with 200.
        last_ones: How many of these answers closed their connection.
    """

    def __init__(self, url: str, some_answered: threading.Event) -> None:
        self._address = url.removeprefix("http://")
        self._some_answered = some_answered
        self.answered = self.last_ones = 0

    def run(self) -> None:
        """Fail at anything but 200; a new connection may be refused, and nothing else."""
        with contextlib.suppress(ConnectionRefusedError):
            while True:
                self._use_a_connection()

    def _use_a_connection(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=30)
        connection.connect()
        with contextlib.closing(connection):
            while connection.sock is not None:
                connection.request("POST", "/detect", plain(255), PNG)
                answer = connection.getresponse()
                assert (answer.status, answer.read() != b"") == (200, True)
                self.answered += 1
                self.last_ones += answer.headers["Connection"] == "close"
                if self.answered > 5:
                    self._some_answered.set()


def drained_by(clients: int, running: Server) -> list[DrainClient]:
    """Send SIGTERM to a server under load."""
    some_answered = threading.Event()
    crowd = [DrainClient(running.url, some_answered) for _ in range(clients)]
    with ThreadPoolExecutor(clients) as pool:
        futures = [pool.submit(client.run) for client in crowd]
        assert some_answered.wait(30)
        running.send(SIGTERM)
        for future in futures:
            future.result(timeout=60)
    return crowd


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_under_load_loses_nothing(model: Path, workers: str) -> None:
    """No request is refused, reset or left without an answer, up to the closing of the port."""
    flags = ("--drain-grace-s", "1", "--workers", workers)
    with server(model, *flags) as running, contextlib.ExitStack() as idle:
        for _ in range(int(workers) if workers != "1" else 0):
            running.wait_for("worker serves")
        host, port = running.url.removeprefix("http://").split(":")
        late = idle.enter_context(socket.create_connection((host, int(port))))
        late.sendall(b"GET /health/ready HTTP/1.1\r\nHost: x\r\n")
        crowd = drained_by(8, running)
        # Its head began before the port closed.
        late.sendall(b"\r\n")
        answer = late.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nconnection: close\r\n" in answer.lower()
        assert running.exit_code() == 0
    assert sum(client.last_ones for client in crowd) > len(crowd)


def test_a_keep_alive_client_is_told_to_connect_anew(model: Path) -> None:
    with server(model, "--drain-grace-s", "600") as running:
        connection = http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/health/live")
            assert connection.getresponse().read()
            running.send(SIGTERM)
            while running.client.get("/health/ready").status_code == 200:
                pass
            connection.request("GET", "/health/live")
            answer = connection.getresponse()
            assert (answer.status, answer.headers["Connection"]) == (200, "close")
            assert running.client.post("/detect", content=plain(255), headers=PNG).is_success


def test_ctrl_c_ends_at_once_and_cleanly(model: Path) -> None:
    with server(model, "--drain-grace-s", "600") as running:
        running.send(SIGINT)
        assert running.exit_code() == 0


def test_a_client_that_leaves_half_way_disturbs_nobody(running: Server) -> None:
    host, port = running.url.removeprefix("http://").split(":")
    line = b"POST /detect HTTP/1.1\r\n"
    headers = b"Host: x\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\n"
    for sent in (line, line + headers, line + headers + b"half"):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(sent)
    ok = running.client.post("/detect", content=plain(255), headers=PNG)
    assert ok.status_code == 200


def test_model_without_contract_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    path = tmp_path / "alien.onnx"
    onnx.save(tiny_yolox_model(), path)
    code, complaint = failed_start("--model", str(path))
    assert code == 1
    assert f"yolox-serve adopt {path}" in complaint
    assert complaint.count("\n") == 1


def test_a_contract_that_its_graph_contradicts_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    path = model_file(tmp_path, tiny_yolox_model(), height=96)
    code, complaint = failed_start("--model", str(path), "--device", "cpu")
    assert code == 1
    (error,) = (line for line in complaint.splitlines() if not line.startswith("{"))
    assert error.startswith(f"error: {path}: the model cannot run")


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_gpu_asked_for_that_is_not_there_is_exit_code_1(model: Path, device: str) -> None:
    code, complaint = failed_start("--model", str(model), "--device", device)
    assert code == 1
    assert f"error: device '{device}' was asked for" in complaint
    assert "Traceback" not in complaint


def test_a_model_file_that_is_not_there_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    code, complaint = failed_start("--model", str(tmp_path / "no.onnx"))
    assert code == 1
    assert complaint == f"error: there is no model file {tmp_path / 'no.onnx'}\n"


@pytest.mark.parametrize("arguments", [[], ["--model", ""]], ids=["unset", "empty"])
@pytest.mark.parametrize("variable", [None, ""], ids=["no variable", "empty variable"])
def test_without_a_model_the_embedded_one_is_served(
    model: Path,
    arguments: list[str],
    variable: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("YOLOX_MODEL", raising=False)
    if variable is not None:
        monkeypatch.setenv("YOLOX_MODEL", variable)
    here = f"import pathlib, service.build as s; s.DEFAULT_MODEL = pathlib.Path({str(model)!r})"
    running = Server(*arguments, sabotage=here)
    try:
        assert running.client.get("/model").json()["contract"]["name"] == "tiny"
    finally:
        running.close()
    logged = [json.loads(line) for line in running.events]
    (line,) = [line for line in logged if line["event"] == "model"]
    assert (line["name"], line["version"], line["file"]) == ("tiny", "1", str(model))


def test_a_port_in_use_is_a_failure_to_start(running: Server, model: Path) -> None:
    port = running.url.rpartition(":")[2]
    done = subprocess.run(
        [*running.process.args[:3], "--port", port, "--model", str(model)],  # type: ignore[index]
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"error: cannot listen on http://127.0.0.1:{port}: Address already"
    )
    assert done.stderr.count("\n") == 1


def test_onnxruntime_is_kept_from_reporting_to_its_maker(model: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    code = (
        "import sys; from pathlib import Path; from service.engine.onnx_cpu import OnnxCpuEngine\n"
        "OnnxCpuEngine(Path(sys.argv[1])).load()"
    )
    subprocess.run([sys.executable, "-c", code, str(model)], env=environment, check=True)
    assert not (tmp_path / "cache").exists()


HANGING_DECODER = """
import threading, service.pipeline.stages as stages
real, probed = stages.read_image, []
def read_image(*arguments, **options):
    # The start's one: what makes the server ready.
    if probed:
        threading.Event().wait()
    probed.append(1)
    return real(*arguments, **options)
stages.read_image = read_image
"""
HANGING_ENGINE = """
import threading, service.engine.onnx_cpu as engine
real, warm = engine.OnnxCpuEngine.infer, []
def infer(self, images, span):
    # The start's one: the first probe. Warming calls the session itself.
    return real(self, images) if not warm and not warm.append(1) else threading.Event().wait()
engine.OnnxCpuEngine.infer = infer
"""


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        # Nobody waits for what a thread that only decodes still has in hand.
        (("--decode-threads", "1"), 0),
        # One that also runs the model is an engine that hangs.
        (("--shutdown-timeout-s", "1"), 1),
    ],
)
def test_a_hanging_decoder_does_not_keep_the_process_alive(
    model: Path, arguments: tuple[str, ...], exit_code: int
) -> None:
    with server(model, "--drain-grace-s", "0", *arguments, sabotage=HANGING_DECODER) as running:
        answer = running.client.post("/detect?timeout_ms=50", content=plain(), headers=PNG)
        assert answer.status_code == 504
        running.send(SIGTERM)
        assert running.exit_code() == exit_code


def test_a_hanging_engine_ends_with_exit_code_1(model: Path) -> None:
    arguments = ("--drain-grace-s", "0", "--shutdown-timeout-s", "1")
    with server(model, *arguments, "--engine-threads", "1", sabotage=HANGING_ENGINE) as running:
        answer = running.client.post("/detect?timeout_ms=50", content=plain(), headers=PNG)
        assert answer.status_code == 504
        running.send(SIGTERM)
        assert running.exit_code() == 1


BROKEN_ENGINE = HANGING_ENGINE.replace("threading.Event().wait()", "1 // 0")


@pytest.mark.parametrize("sabotage", [HANGING_ENGINE, BROKEN_ENGINE], ids=["hangs", "raises"])
def test_an_engine_that_does_not_come_back_ends_the_server_to_be_started_again(
    model: Path, sabotage: str
) -> None:
    flags = ("--ready-window-s", "1", "--max-failed-probes", "3", "--engine-threads", "1")
    with server(model, *flags, sabotage=sabotage) as running:
        running.wait_for("the engine does not come back")
        assert running.exit_code() == 3


def test_an_engine_that_does_not_come_back_may_be_kept(model: Path) -> None:
    flags = ("--ready-window-s", "0.3", "--max-failed-probes", "0", "--drain-grace-s", "0")
    with server(model, *flags, sabotage=BROKEN_ENGINE) as running:
        for _ in range(8):
            running.wait_for("probe failed")
        assert running.client.get("/health/ready").status_code == 503
        dead = running.client.get("/health/live")
        assert (dead.status_code, "probes" in dead.json()["detail"]) == (503, True)
        running.send(SIGTERM)
        assert running.exit_code() == 0


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="a policy of Linux")
@pytest.mark.parametrize("chosen", ["SCHED_OTHER", "SCHED_IDLE"])
def test_packets_do_not_interrupt_engines_unless_somebody_chose_a_policy(
    model: Path, chosen: str
) -> None:
    choose = f"import os; os.sched_setscheduler(0, os.{chosen}, os.sched_param(0))"
    expected = os.SCHED_BATCH if chosen == "SCHED_OTHER" else os.SCHED_IDLE
    with server(model, sabotage=choose) as running:
        # The thread of the event loop; what it starts inherits this.
        assert os.sched_getscheduler(running.process.pid) == expected


def test_who_is_refused_is_answered_like_anybody_else(model: Path) -> None:
    places = ("--max-queue-images", "1", "--max-images-per-request", "1")
    # However many CPUs there are, two requests at most stay: in the engine, and in the queue.
    one = ("--engine-instances", "1", "--engine-threads", "1")
    with (
        server(model, *places, *one, sabotage=HANGING_ENGINE) as running,
        ThreadPoolExecutor() as pool,
    ):
        post, where = running.client.post, "/detect?timeout_ms=2000"
        sent = [pool.submit(post, where, content=plain(), headers=PNG) for _ in range(4)]
        answers = [answer.result() for answer in sent]
        refused = [answer for answer in answers if answer.status_code == 503]
        assert refused
        assert {answer.status_code for answer in answers} == {503, 504}
        ids = {answer.headers["x-request-id"] for answer in refused}
        assert {answer.json()["request_id"] for answer in refused} == ids
        for answer in refused:
            assert answer.json()["type"].endswith(":queue-full")
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["server-timing"].startswith("total;dur=")
        counts = running.client.get("/metrics").text
        for name in (
            'rejections_total{reason="queue-full"}',
            'requests_total{endpoint="/detect",status="503"}',
        ):
            assert f"yolox_{name} {len(refused)}.0" in counts
        assert "yolox_requests_in_flight 0.0" in counts
        logged = [running.wait_for("request") for _ in answers]
        assert {line["request_id"] for line in logged if line["status"] == 503} == ids


def test_a_second_signal_ends_it_on_the_spot(model: Path) -> None:
    with server(model, "--drain-grace-s", "600") as running:
        running.send(SIGTERM)
        draining = running.client.get("/health/ready")
        while draining.status_code == 200:
            draining = running.client.get("/health/ready")
        running.send(SIGINT)
        assert running.exit_code() == 1


def test_an_idle_connection_outlives_uvicorn_s_five_seconds(running: Server) -> None:
    connection = http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=6)
    with contextlib.closing(connection):
        connection.request("GET", "/health/live")
        assert connection.getresponse().read() == b'{"status":"alive"}'
        idle = connection.sock
        with pytest.raises(TimeoutError):
            idle.recv(1)
        connection.request("GET", "/health/live")
        assert connection.getresponse().status == 200
        assert connection.sock is idle
