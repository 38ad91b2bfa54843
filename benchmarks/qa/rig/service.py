"""The server under trial: `python -m service` on a port that it keeps over restarts."""

import http.client
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from benchmarks.qa.rig.programs import Program, free_port

QUIET: Final = ("--device", "cpu", "--log-format", "json", "--log-level", "warning")
PEAK: Final = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
HEALTH_TIMEOUT_S: Final = 5.0
# How Python and the C library begin to tell of an end that nobody planned.
CRASHES: Final = ("Traceback", "Fatal Python error", "terminate called", "free()", "malloc()")


class Service(Program):
    """A server with the embedded model, in one process or several.

    Args:
        folder: Where its log goes.
        flags: Its flags.
        host: The address on which it listens.
        port: Where it listens; by default a free port.
    """

    def __init__(
        self,
        folder: Path,
        flags: Sequence[str] = (),
        host: str = "127.0.0.1",
        port: int | None = None,
    ) -> None:
        port = port or free_port()
        command = [sys.executable, "-m", "service", "--host", host, "--port", str(port)]
        log = folder / f"service-{host}-{port}.log"
        # Its temporary files stay with its log, apart from those of other servers.
        environment = {"TMPDIR": str(folder)}
        super().__init__([*command, *QUIET, *flags], port, log, environment, host)
        self._peak_mib = 0.0

    def is_up(self) -> bool:
        """Whether it is ready."""
        with suppress(OSError, http.client.HTTPException):
            asked = http.client.HTTPConnection(self.host, self.port, timeout=HEALTH_TIMEOUT_S)
            with closing(asked):
                asked.request("GET", "/health/ready", headers={"Connection": "close"})
                return asked.getresponse().status == http.HTTPStatus.OK
        return False

    def terminate(self) -> int:
        """Send SIGTERM and wait for the end; gives the exit code."""
        self.peak_mib()
        return super().terminate()

    def kill(self) -> None:
        """End it on the spot, as the kernel does with a process that takes too much memory."""
        self.peak_mib()
        self.process.kill()
        self.process.wait()

    def kill_worker(self) -> None:
        """End its oldest worker on the spot."""
        self.peak_mib()
        os.kill(children(self.process.pid)[0], signal.SIGKILL)

    def peak_mib(self) -> float:
        """The most memory that one of its processes has had at any time, in MiB."""
        pids = [self.process.pid, *children(self.process.pid)]
        self._peak_mib = max([self._peak_mib, *map(_peak_of, pids)])
        return self._peak_mib

    def errors(self) -> list[str]:
        """Lines of its log that tell of an error, or of a crash."""
        return [line for line in self.log.read_text().splitlines() if _is_error(line)]


def children(pid: int) -> list[int]:
    """Processes that a process started, with what these started."""
    found = list[int]()
    with suppress(OSError):
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, file.read_text().split()):
                found += [child, *children(child)]
    return found


def _peak_of(pid: int) -> float:
    try:
        found = PEAK.search(Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0


def _is_error(line: str) -> bool:
    """Whether a line is an error; libraries in C write warnings of their own between the lines."""
    try:
        level = json.loads(line).get("level")
    except (ValueError, AttributeError):
        return line.startswith(CRASHES)
    return level in ("error", "critical")


@contextmanager
def running(folder: Path, *flags: str) -> Iterator[Service]:
    """A server that is ready, for the length of a trial."""
    with closing(Service(folder, flags)) as service:
        service.start()
        service.wait_until_up()
        yield service


@contextmanager
def fleet(folder: Path, count: int, *flags: str) -> Iterator[list[Service]]:
    """Several servers that are ready, on one port of an address for each, as replicas have."""
    port = free_port()
    hosts = [f"127.0.0.{2 + number}" for number in range(count)]
    with ExitStack() as opened:
        services = [
            opened.enter_context(closing(Service(folder, flags, host, port))) for host in hosts
        ]
        for service in services:
            service.start()
        for service in services:
            service.wait_until_up()
        yield services


def restart_one_after_another(services: Sequence[Service], pause_s: float) -> list[int]:
    """Restart each as soon as the one before it is ready again; gives their exit codes.

    Args:
        services: The servers.
        pause_s: Time to wait before each but the first, so that a balancer has found the last.
    """
    codes = list[int]()
    for number, service in enumerate(services):
        time.sleep(pause_s if number else 0)
        codes.append(service.terminate())
        service.start()
        service.wait_until_up()
    return codes
