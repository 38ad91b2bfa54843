"""A real server in a process of its own."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2


class Server:
    """`python -m service` on a free port, with its log read as it comes.

    `sabotage` is code to run before the server; `environment` is added to the tests' environment.
    Unless `arguments` name a device, it is `cpu` (ONNX Runtime), even if OpenVINO is quicker here.
    """

    def __init__(
        self, *arguments: str, sabotage: str = "", environment: Mapping[str, str] | None = None
    ) -> None:
        code = f"{sabotage}\nimport sys, service.__main__ as m; sys.exit(m.main(sys.argv[1:]))"
        start = ["-c", code] if sabotage else ["-m", "service"]
        command = [
            sys.executable,
            *start,
            "--port",
            "0",
            "--log-format",
            "json",
            *device(arguments),
        ]
        self.process = subprocess.Popen(
            [*command, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | dict(environment or {}),
        )
        self.events: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            started = self.wait_for("the server listens", "workers listen")
        except BaseException:
            # A test that fails here must not leave a process behind.
            self._end()
            raise
        self.url = started["url"]
        self.client = _client(self.url)

    def _read(self) -> None:
        stderr = self.process.stderr
        if stderr is not None:
            for line in stderr:
                self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, *beginnings: str) -> dict[str, Any]:
        """Wait for the next event of the log that starts with one of `beginnings`."""
        while (line := self._lines.get(timeout=60)) is not None:
            self.events.append(line)
            with contextlib.suppress(ValueError):
                event: dict[str, Any] = json.loads(line)
                if event.get("event", "").startswith(beginnings):
                    return event
        raise AssertionError(f"the server never said {beginnings}" + "".join(self.events))

    def send(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def exit_code(self) -> int:
        """Wait for the process to end; gives its exit code."""
        return self.process.wait(timeout=60)

    def close(self) -> None:
        """Stop the process, in any state."""
        self.client.close()
        self._end()

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=60)
        # Workers of a killed supervisor write to the log until they end, too.
        self._reader.join(timeout=60)
        if self.process.stderr is not None:
            self.process.stderr.close()


def _client(url: str) -> httpx2.Client:
    """A client of the server, on a port or a unix socket."""
    if not url.startswith("unix:"):
        return httpx2.Client(base_url=url, timeout=60)
    transport = httpx2.HTTPTransport(uds=url.removeprefix("unix:"))
    return httpx2.Client(base_url="http://server", transport=transport, timeout=60)


def device(arguments: Sequence[str]) -> list[str]:
    """The flags of the default device, if the arguments name none."""
    return [] if "--device" in arguments else ["--device", "cpu"]


@contextlib.contextmanager
def server(model: Path, *arguments: str, sabotage: str = "") -> Iterator[Server]:
    """Serve a model for the length of a test."""
    running = Server("--model", str(model), *arguments, sabotage=sabotage)
    try:
        yield running
    finally:
        running.close()


def failed_start(*arguments: str) -> tuple[int, str]:
    """Exit code and standard error of a server that should not start."""
    done = subprocess.run(
        [sys.executable, "-m", "service", "--port", "0", *device(arguments), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr


SIGINT, SIGTERM = signal.SIGINT, signal.SIGTERM
