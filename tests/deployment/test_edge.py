"""The edge of the compose file: the real nginx, with the project's configuration."""

import contextlib
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx2
import pytest

from benchmarks.qa.rig.balancers import up
from benchmarks.qa.rig.edge import CONFIG, edge
from benchmarks.qa.rig.names import Names, telling
from benchmarks.qa.rig.programs import find_recent_nginx
from service.http.connection.ending import HEAD_TIMEOUT_S
from service.http.connection.limits import MAX_HEAD_BYTES
from service.process.listening.uvicorn_config import KEEP_ALIVE_S
from service.settings import Settings
from support.programs import needed
from support.replicas import Replica, answering, dropping, replicas

pytestmark = pytest.mark.heavy

UNITS = {"": 1, "k": 2**10, "m": 2**20, "s": 1}
OK = answering(200)


@pytest.fixture(scope="module", autouse=True)
def _nginx() -> None:
    needed(find_recent_nginx)


class Edge:
    """The edge before some replicas."""

    def __init__(self, port: int, names: Names, behind: list[Replica], scheme: str) -> None:
        self.port, self.names, self.replicas = port, names, behind
        verify = ssl.create_default_context()
        verify.check_hostname, verify.verify_mode = False, ssl.CERT_NONE
        url = f"{scheme}://127.0.0.1:{port}"
        self.client = httpx2.Client(base_url=url, timeout=60, verify=verify)

    def asked(self) -> list[int]:
        return [len(replica.asked) for replica in self.replicas]

    def send(self, content: bytes) -> bytes:
        """Everything that the edge sends in answer to these bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(content)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@contextlib.contextmanager
def running(folder: Path, *answers: Any, **options: Any) -> Iterator[Edge]:
    with (
        replicas(*answers) as (port, behind),
        telling([each.host for each in behind]) as names,
        up(edge(folder, port, names.port, **options)) as front,
    ):
        scheme = "https" if options.get("certificates") else "http"
        opened = Edge(front.port, names, behind, scheme)
        with opened.client:
            wait_until(lambda: opened.client.get("/health/ready").status_code != 502)
            for each in behind:
                each.asked.clear()
            yield opened


def wait_until(holds: Any) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """The edge as it is, before three replicas that are well."""
    with running(tmp_path_factory.mktemp("edge"), OK, OK, OK) as opened:
        yield opened


def problem(answer: httpx2.Response, status: int, slug: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert set(document) == {"type", "title", "status", "detail", "request_id"}
    assert document["type"] == f"urn:problem-type:yolox-serve:{slug}"
    assert document["status"] == status
    assert document["request_id"] == answer.headers["x-request-id"]
    assert ("retry-after" in answer.headers) == (status in (502, 503))


def setting(name: str) -> int:
    """A number of the configuration, in bytes or seconds."""
    text = "".join(path.read_text() for path in sorted(CONFIG.glob("*.conf")))
    ((number, unit),) = re.findall(rf"^\s*{name} (\d+)([kms]?);", text, re.MULTILINE)
    return int(number) * UNITS[unit]


# Bounds


def test_bounds_are_those_of_the_server() -> None:
    settings = {name: field.default for name, field in Settings.model_fields.items()}
    deadline_s = settings["request_timeout_ms"] / 1000
    assert setting("client_max_body_size") == settings["max_body_bytes"]
    assert setting("client_header_timeout") == HEAD_TIMEOUT_S
    assert setting("proxy_next_upstream_timeout") <= deadline_s < setting("proxy_read_timeout")
    (heads,) = re.findall(
        r"large_client_header_buffers (\d+) (\d+)k;", (CONFIG / "common.conf").read_text()
    )
    assert int(heads[0]) * int(heads[1]) * 1024 == MAX_HEAD_BYTES
    text = (CONFIG / "upstream.conf").read_text()
    (kept,) = re.findall(r"keepalive_timeout (\d+)s;", text)
    assert int(kept) < KEEP_ALIVE_S


def test_a_body_beyond_the_limit_is_refused_before_it_comes(three: Edge) -> None:
    three.client.post("/detect", content=b"x" * 1000).raise_for_status()
    before = sum(three.asked())
    head = "POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", three.port), timeout=20) as connection:
        connection.sendall((head % (setting("client_max_body_size") + 1)).encode())
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"type":"urn:problem-type:yolox-serve:too-large"' in answer
    assert sum(three.asked()) == before


def test_a_body_reaches_a_server_only_when_it_is_whole(three: Edge) -> None:
    before = sum(three.asked())
    with socket.create_connection(("127.0.0.1", three.port), timeout=20) as slow:
        slow.sendall(b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        time.sleep(0.3)
        assert sum(three.asked()) == before
        slow.sendall(b"cd")
        assert slow.recv(100).startswith(b"HTTP/1.1 200")


def test_requests_beyond_the_limit_of_a_client_are_told_to_come_back(tmp_path: Path) -> None:
    gate = threading.Event()

    def waiting(request: BaseHTTPRequestHandler) -> None:
        gate.wait(30 if request.path == "/detect" else 0)
        OK(request)

    lower = {"limit_conn of_client 64": "limit_conn of_client 2"}
    with running(tmp_path, waiting, changes=lower) as one, ThreadPoolExecutor() as pool:
        held = [pool.submit(one.client.post, "/detect", content=b"x") for _ in range(2)]
        wait_until(lambda: one.asked() == [2])
        problem(one.client.post("/detect", content=b"x"), 503, "edge-busy")
        gate.set()
        assert {each.result().status_code for each in held} == {200}


# Requests that reach a server


def test_the_server_learns_the_request_s_id_and_the_client_s_address(three: Edge) -> None:
    headers = {"X-Request-ID": "mine-1", "X-Forwarded-For": "10.1.2.3", "Host": "photos.example"}
    three.client.post("/detect", content=b"x", headers=headers).raise_for_status()
    (seen,) = (h for each in three.replicas for h in each.asked if h["X-Request-ID"] == "mine-1")
    assert seen["X-Forwarded-For"] == "127.0.0.1"
    assert seen["X-Forwarded-Proto"] == "http"
    assert seen["Host"] == "photos.example"


def test_an_id_that_the_server_would_not_take_is_replaced(three: Edge) -> None:
    answer = three.client.get("/metrics", headers={"X-Request-ID": '"}{<b>'})
    problem(answer, 404, "not-found")
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def test_connections_to_the_servers_stay_open(three: Edge) -> None:
    for _ in range(30):
        three.client.post("/detect", content=b"x").raise_for_status()
    assert sum(each.connections for each in three.replicas) < 20
    assert all(count >= 5 for count in three.asked())


# Servers that fail


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_whose_server_dies_is_answered_by_another(tmp_path: Path, method: str) -> None:
    with running(tmp_path, OK, OK) as two:
        content = b"x" * 300_000 if method == "POST" else None
        two.replicas[0].answer = dropping
        for _ in range(8):
            two.client.request(method, "/detect", content=content).raise_for_status()
        # It is left alone after three failures.
        assert two.asked() == [3, 8]


def test_a_request_that_kills_servers_reaches_two_at_most(tmp_path: Path) -> None:
    def deadly(request: BaseHTTPRequestHandler) -> None:
        (dropping if request.path == "/detect" else OK)(request)

    with running(tmp_path, deadly, deadly, deadly) as all_three:
        problem(all_three.client.post("/detect", content=b"x"), 502, "no-server")
        assert sum(all_three.asked()) == 2


def test_servers_that_have_all_failed_are_asked_all_the_same(tmp_path: Path) -> None:
    with running(tmp_path, OK, OK) as two:
        for each in two.replicas:
            each.answer = dropping
        for _ in range(4):
            problem(two.client.post("/detect", content=b"x"), 502, "no-server")
        for each in two.replicas:
            each.answer = OK
        two.client.post("/detect", content=b"x").raise_for_status()


def test_a_server_that_stays_silent_is_not_followed_by_another(tmp_path: Path) -> None:
    gate = threading.Event()

    def silent(request: BaseHTTPRequestHandler) -> None:
        gate.wait(30 if request.path == "/detect" else 0)
        dropping(request)

    sooner = {"proxy_read_timeout 15s": "proxy_read_timeout 1s"}
    sooner["proxy_next_upstream_timeout 10s"] = "proxy_next_upstream_timeout 500ms"
    with running(tmp_path, answering(200), changes=sooner) as one:
        one.replicas[0].answer = silent
        problem(one.client.post("/detect", content=b"x"), 504, "deadline-passed")
        assert one.asked() == [1]
        gate.set()


@pytest.mark.parametrize("status", [500, 503, 504])
def test_an_answer_of_a_server_passes_unchanged(tmp_path: Path, status: int) -> None:
    said = answering(status, b'{"detail":"its own words"}')
    with running(tmp_path, said, said) as two:
        answer = two.client.post("/detect", content=b"x")
        assert (answer.status_code, answer.json()) == (status, {"detail": "its own words"})
        assert sum(two.asked()) == 1


def test_no_server_at_all_is_a_problem_document(tmp_path: Path) -> None:
    with running(tmp_path, OK) as one:
        one.names.addresses = ["127.0.0.77"]
        wait_until(lambda: one.client.get("/model").status_code == 502)
        problem(one.client.post("/detect", content=b"x"), 502, "no-server")


def test_servers_that_are_added_get_requests_without_a_restart(tmp_path: Path) -> None:
    with running(tmp_path, OK, OK, OK) as scaled:
        scaled.names.addresses = [scaled.replicas[0].host]

        def one_alone() -> bool:
            for each in scaled.replicas:
                each.asked.clear()
            for _ in range(6):
                scaled.client.get("/model").raise_for_status()
            return scaled.asked() == [6, 0, 0]

        wait_until(one_alone)
        scaled.names.addresses = [each.host for each in scaled.replicas]
        wait_until(lambda: scaled.client.get("/model").is_success and all(scaled.asked()))


# HTTP and TLS


@pytest.mark.parametrize(
    ("sent", "status", "slug"),
    [
        (b"no request\r\n\r\n", 400, "malformed-request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "malformed-request"),
        (b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 405, "method-not-allowed"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431, "head-too-large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 20_000 + b"\r\n\r\n", 431, "head-too-large"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\n\r\n", 501, "not-implemented"),
    ],
)
def test_errors_of_nginx_are_problem_documents(
    three: Edge, sent: bytes, status: int, slug: str
) -> None:
    sent = sent.replace(b"Host: x", b"Host: x\r\nConnection: close")
    answer = three.send(sent)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Type: application/problem+json" in answer
    assert f'"type":"urn:problem-type:yolox-serve:{slug}"'.encode() in answer
    assert b"nginx/" not in answer


def test_tls_is_served_with_the_certificates_that_are_given(tmp_path: Path) -> None:
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=edge -keyout tls.key"
    try:
        subprocess.run(
            [*make.split(), "-out", "tls.crt"], cwd=tmp_path, check=True, capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("openssl, which makes a certificate, is not installed")
    with running(tmp_path, OK, certificates=tmp_path) as secure:
        secure.client.post("/detect", content=b"x").raise_for_status()
        assert secure.replicas[0].asked[0]["X-Forwarded-Proto"] == "https"
        problem(httpx2.get(f"http://127.0.0.1:{secure.port}/model"), 400, "malformed-request")
