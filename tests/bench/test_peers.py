"""The comparison with other servers: what it is asked for, and what it runs."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.peers.arguments import read_arguments
from benchmarks.peers.contenders import one_per_cpu, peers
from benchmarks.peers.host import processes
from benchmarks.peers.host.environments import pins
from benchmarks.peers.host.load import read_outcome, write_photo_list
from benchmarks.peers.host.machine import CpuTimes, foreign_share, read_cpu
from benchmarks.peers.inputs.preparing import find_photos
from benchmarks.peers.loops import loops
from model_export.errors import ModelExportError
from service.build import DEFAULT_MODEL
from service.cpus import usable_cpus

# The command line


def test_no_argument_is_needed() -> None:
    arguments = read_arguments([])
    assert arguments.model == DEFAULT_MODEL
    assert arguments.peers_model is None
    assert len(find_photos(arguments.photos)) > 3
    assert set(arguments.peers) == {peer.name for peer in peers(2)}
    assert arguments.concurrency == (1, 2, 4, 8, 16, 32)
    assert arguments.flags == one_per_cpu(usable_cpus())


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ("mosec", ("mosec",)),
        ("mosec,fastapi", ("mosec", "fastapi-threads", "fastapi-processes")),
        ("mosec ray", ("mosec", "ray")),
        ("fastapi-threads,fastapi", ("fastapi-threads", "fastapi-processes")),
        ("", ()),
    ],
)
def test_peers_are_chosen_by_name(words: str, chosen: tuple[str, ...]) -> None:
    assert read_arguments(["--peers", *words.split()]).peers == chosen


@pytest.mark.parametrize("option", ["--concurrency", "--connections"])
@pytest.mark.parametrize("words", ["8,1", "1 8", "8 1,8"])
def test_loads_are_chosen_by_commas_or_spaces(option: str, words: str) -> None:
    assert read_arguments([option, *words.split()]).concurrency == (1, 8)


def test_a_comparison_can_be_short() -> None:
    arguments = read_arguments(["--rounds", "1", "--seconds", "2", "--ours", "--device cpu"])
    assert (arguments.rounds, arguments.seconds) == (1, 2.0)
    assert arguments.flags == ("--device", "cpu")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--peers nginx", "nginx is none of fastapi-threads, "),
        ("--concurrency 1,x", "1,x is not N or N,N,..."),
        ("--concurrency 0", "0 is not positive"),
        ("--seconds 0.5", "0.5 is less than 1"),
        ("--warm-up 0", "0 is less than 1"),
        ("--rounds -1", "-1 is negative"),
        ("--checked 0", "0 is not positive"),
    ],
)
def test_wrong_arguments_are_explained(
    words: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        read_arguments(words.split())
    assert complaint in capsys.readouterr().err


# What runs


def test_the_photo_list_has_whole_paths(tmp_path: Path) -> None:
    listed = write_photo_list([tmp_path / "a.jpg", tmp_path / "b.jpg"], tmp_path / "list.txt")
    assert listed.read_text() == f"{tmp_path}/a.jpg\n{tmp_path}/b.jpg\n"


def test_the_outcome_is_the_last_line_that_wrk_prints() -> None:
    line = {"requests": 9, "seconds": 1.5, "errors": 1, "p50_ms": 1, "p90_ms": 2, "p99_ms": 3}
    outcome = read_outcome(f"Running 1s test\n  Requests/sec: 9\n\n{json.dumps(line)}\n")
    assert (outcome.requests, outcome.errors, outcome.p99_ms) == (9, 1, 3)
    for nonsense in ("", "Running 1s test\n", '{"requests": 9}\n'):
        with pytest.raises(ModelExportError, match="printed no outcome"):
            read_outcome(nonsense)


def test_each_peer_has_pinned_requirements_and_the_same_runtime() -> None:
    environments = {peer.environment for peer in peers(4)}
    versions = {pin for name in environments if name for pin in pins(name) if "onnxruntime" in pin}
    assert len(versions) == 1
    assert all("==" in pin for name in environments if name for pin in pins(name))


def test_every_peer_fills_the_machine_with_threads_of_one_runtime() -> None:
    assert {peer.workers * peer.threads for peer in peers(4)} == {4}
    assert max(loop.processes * loop.threads for loop in loops(4)) == 4
    assert len({peer.name for peer in peers(4)}) == len(peers(4))


@pytest.mark.parametrize(
    ("flags", "kept"),
    [("fpu avx2", ()), ("amx_bf16 fpu avx512_bf16", ("avx512_bf16", "amx_bf16"))],
)
def test_the_cpu_is_described_by_model_and_bfloat16_flags(
    flags: str, kept: tuple[str, ...]
) -> None:
    one = f"processor\t: 0\nmodel name\t: Fast 9: Pro\nflags\t\t: {flags}\nbugs\t: amx_bf16\n"
    assert read_cpu(2 * one) == ("Fast 9: Pro", kept)
    assert read_cpu("")[1] == ()


def test_foreign_share_is_what_neither_we_nor_the_contender_used() -> None:
    before, after = CpuTimes(10, 100, 1), CpuTimes(17, 120, 2)
    assert foreign_share(before, after, 4.0) == pytest.approx(0.1)
    assert foreign_share(before, after, 9.0) == 0
    assert foreign_share(before, before, 0.0) == 0


SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])
http.server.HTTPServer(("127.0.0.1", int(os.environ["PEER_PORT"])), Handler).serve_forever()
"""
# Like a framework whose daemons leave their parent's session.
DAEMON = "import subprocess, sys; subprocess.run(sys.argv[1:], start_new_session=True)"


def test_a_server_is_asked_weighed_and_ended_with_its_daemons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_TIMEOUT_S", 0.1)
    command = [sys.executable, "-c", DAEMON, sys.executable, "-c", SERVER]
    server = processes.RunningServer(command, {}, folder=tmp_path, log=tmp_path / "daemon.log")
    try:
        server.wait_until_it_answers("/detect", b"photo")
        assert server.post("/detect", b"photo") == (200, b"otohp")
        assert server.memory_mib() > 5
        assert server.cpu_seconds() > 0
    finally:
        server.stop()
    assert server.memory_mib() == 0
    # Its memory is gone a moment before its socket: refused, or cut off.
    with pytest.raises(ConnectionError):
        server.post("/detect", b"photo")


def test_a_server_that_ends_is_told_of_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    server = processes.RunningServer(command, {}, folder=tmp_path, log=tmp_path / "a.log")
    try:
        with pytest.raises(ModelExportError, match=r"a does not answer(.|\n)*no such model"):
            server.wait_until_it_answers("/detect", b"")
    finally:
        server.stop()
