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

    `sabotage` is code to run before it; `environment` is added to the one that tests run in. The
    device is the CPU by ONNX Runtime, whichever engine this CPU runs quicker, unless arguments say
    otherwise.
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
            started = self.wait_for("Uvicorn running on ", "workers listen")
        except BaseException:
            # A test that fails here leaves nothing for the next one to find.
            self._end()
            raise
        self.url = started.get("url") or started["event"].split()[3]
        self.client = httpx2.Client(base_url=self.url, timeout=60)

    def _read(self) -> None:
        stderr = self.process.stderr
        if stderr is not None:
            for line in stderr:
                self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, *beginnings: str) -> dict[str, Any]:
        """The next event of the log, not yet waited for, that begins like one of these."""
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
        """Wait for the end."""
        return self.process.wait(timeout=60)

    def close(self) -> None:
        """End it whatever its state."""
        self.client.close()
        self._end()

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=60)
        # Workers of a killed supervisor write on until they have ended too.
        self._reader.join(timeout=60)
        if self.process.stderr is not None:
            self.process.stderr.close()


def device(arguments: Sequence[str]) -> list[str]:
    """The flags of the device, where the arguments name none."""
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
