"""The processes of a contender: how they start, what they use, and how they end."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from model_export.errors import ModelExportError

START_TIMEOUT_S: Final = 180.0
# Some servers ignore the request to end.
STOP_TIMEOUT_S: Final = 6.0
KILL_TIMEOUT_S: Final = 10.0
POLL_S: Final = 0.2
REQUEST_TIMEOUT_S: Final = 30.0
# Frameworks start daemons that leave their parent's process tree, but keep its environment.
MARK: Final = "PEER_MARK"
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat, counted after the name: user and system time of the process, and of its
# children that have ended.
CPU_FIELDS: Final = slice(11, 15)


class RunningServer:
    """A server in processes of its own, on a free port of this machine.

    Args:
        command: The program and its arguments, in which `{port}` stands for the port.
        environment: Variables to add to those of this process; `PEER_PORT` is always there.
        folder: Its working folder.
        log: The file that takes its output.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, folder: Path, log: Path
    ) -> None:
        self.port = free_port()
        self._mark = uuid.uuid4().hex
        self._log = log
        own = {"PEER_PORT": str(self.port), MARK: self._mark}
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - the catalogue's commands
                [part.replace("{port}", str(self.port)) for part in command],
                env=os.environ | dict(environment) | own,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_until_it_answers(self, path: str, photo: bytes) -> None:
        """Send a photo until the answer is 200.

        Raises:
            ModelExportError: The server ended, or did not answer in time. The message has the end
                of its log.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.post(path, photo)[0] == http.client.OK:
                    return
            if self._process.poll() is not None:
                break
            time.sleep(POLL_S)
        tail = self._log.read_text(errors="replace")[-2000:]
        raise ModelExportError(f"{self._log.stem} does not answer; its log ends with\n{tail}")

    def post(self, path: str, photo: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to one JPEG.

        Raises:
            OSError: The server cannot be reached.
            http.client.HTTPException: The answer is not HTTP.
        """
        return self._request("POST", path, photo, {"Content-Type": "image/jpeg"})

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of the answer to a GET; raises as `post` does."""
        return self._request("GET", path, None, {})

    def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            return response.status, response.read()

    def cpu_seconds(self) -> float:
        """CPU time so far of all its processes, including those that have ended."""
        return sum(_cpu_seconds(pid) for pid in self._pids())

    def memory_mib(self) -> float:
        """Proportional set size: memory that several of its processes share counts once."""
        return sum(pss_mib(pid) for pid in self._pids())

    def stop(self) -> None:
        """End it as an operator would, and then kill what is left of it."""
        self._process.terminate()
        if not self._ends_within(STOP_TIMEOUT_S):
            for pid in self._pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._ends_within(KILL_TIMEOUT_S)
        self._process.wait()

    def _ends_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._pids():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def _pids(self) -> list[int]:
        return list(marked_pids(self._mark))


def marked_pids(mark: str) -> Iterator[int]:
    """The processes that have this mark in their environment."""
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


def pss_mib(pid: int) -> float:
    """Proportional set size of a process in MiB; 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def free_port() -> int:
    """A TCP port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _cpu_seconds(pid: int) -> float:
    with contextlib.suppress(OSError):
        # The process name comes first, and may hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[CPU_FIELDS])) / TICKS_PER_S
    return 0.0
