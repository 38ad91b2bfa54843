"""Two machines train one model: here two launchers on two loopback addresses, with gloo."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from model_export.__main__ import main
from model_export.drawing.demo_data import shapes, write_demo_data
from model_export.errors import InterruptedRunError, ModelExportError
from model_export.training.launch import reason
from model_export.training.parallel import OTHER_ENDED
from support.project import ROOT

PATIENCE_S = 240
TINY = (
    *("--variant", "pico", "--size", "64", "--batch-size", "4", "--multiscale", "0"),
    *("--mosaic", "0", "--device", "cpu", "--workers", "0", "--norm-images", "0"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_data(tmp_path_factory.mktemp("data"), shapes(64, 0), train=4, val=1)[0]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def nodes(data: Path, run: Path, *more: str) -> Iterator[list[subprocess.Popen[str]]]:
    """The launchers of two machines, each with one process, which are gone afterwards."""
    address = ("--master-addr", "127.0.0.1", "--master-port", str(free_port()))
    files = ("--data", str(data), "--val", str(data.with_name("val.json")), "--output", str(run))
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "model_export", "torchrun", "--nnodes", "2"),
                *("--node-rank", str(node), "--local-addr", f"127.0.0.{node + 1}", *address),
                *("--nproc-per-node", "1", "train", *files, *TINY, *more),
            ],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "GLOO_SOCKET_IFNAME": "lo",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for node in range(2)
    ]
    try:
        yield started
    finally:
        for process in started:
            kill(process)
            process.communicate()


def kill(launcher: subprocess.Popen[str]) -> None:
    """End a launcher and its process as a machine that loses its power does."""
    for process in (*children(launcher.pid), launcher.pid):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(each) for each in listed.read_text().split()] if listed.exists() else []


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has 127.0.0.2 by itself")
def test_two_machines_leave_one_run(data: Path, tmp_path: Path) -> None:
    with nodes(data, tmp_path / "run", "--epochs", "1") as (first, second):
        said = [process.communicate(timeout=PATIENCE_S) for process in (first, second)]

    assert (first.returncode, second.returncode) == (0, 0), said
    assert said[0][0] == f"{tmp_path / 'run'}\n"
    assert "best epoch 1" in said[0][1]
    assert said[1] == ("", "")
    assert (tmp_path / "run" / "model.onnx").is_file()


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has 127.0.0.2 by itself")
def test_machine_that_is_lost_ends_the_other_with_one_line(data: Path, tmp_path: Path) -> None:
    endless = ("--epochs", "9999", "--evaluate-every", "9999")
    with nodes(data, tmp_path / "run", *endless) as (first, second):
        assert first.stderr is not None
        assert any(line.startswith("epoch 1/") for line in first.stderr)
        kill(second)
        started = time.monotonic()
        _, errors = first.communicate(timeout=PATIENCE_S)

    lines = [line for line in errors.splitlines() if not line.startswith("epoch ")]
    assert lines == [f"error: {OTHER_ENDED}"]
    assert first.returncode == 1
    assert time.monotonic() - started < PATIENCE_S / 2


def failure(rank: int, code: int, message: str | None = None, at: int = 0) -> SimpleNamespace:
    told = {"message": {"message": message}} if message else {"message": "<NONE>"}
    return SimpleNamespace(local_rank=rank, exitcode=code, error_file_data=told, timestamp=at)


@pytest.mark.parametrize(
    ("failures", "said"),
    [
        ([failure(0, 1, OTHER_ENDED, 1), failure(1, 1, "the disk is full", 2)], "the disk is full"),
        ([failure(0, 1, "b", 2), failure(1, 1, "a", 1)], "^a$"),
        ([failure(0, 1, OTHER_ENDED, 1)], "another process"),
        (
            [failure(0, 1, OTHER_ENDED), failure(1, -9)],
            "process 1 of this machine was killed by SIGKILL, perhaps for want",
        ),
        ([failure(0, -11)], "was killed by SIGSEGV$"),
        ([failure(2, 7)], "process 2 of this machine ended with exit code 7"),
    ],
)
def test_process_that_failed_first_is_the_reason(
    failures: list[SimpleNamespace], said: str
) -> None:
    with pytest.raises(ModelExportError, match=said):
        raise reason(failures)


def test_interrupted_processes_are_no_failure() -> None:
    with pytest.raises(InterruptedRunError) as error:
        raise reason([failure(0, 143)])
    assert (str(error.value), error.value.signal_number) == ("", signal.SIGTERM)


def test_launcher_needs_a_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["torchrun", "--nproc-per-node", "2"]) == 2
    assert "needs `train`" in capsys.readouterr().err
