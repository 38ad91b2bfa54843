"""Runs several workers behind one port: starts them in turn, replaces dead ones, ends them all."""

import json
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import BinaryIO, Final, cast

import structlog
from pydantic import SecretStr

from service.observe.process_group import FOLDER_VARIABLE, forget_gauges, write_process_ids
from service.process.hangup import hangups_held, release_hangups
from service.process.listening.closing_port import begin_no_connections
from service.process.listening.grpc_port import check_grpc_port
from service.process.listening.ports import Ports, bind_ports
from service.process.shared_folder import shared_folder
from service.queue.cpu_sharing import LOADS_FILE, WorkerLoads
from service.settings import Settings

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
# A worker that serves and has given no sign of life for this long hangs. It gives one a second.
HANGS_AFTER_S: Final = 10.0
LISTENING_S: Final = 1.0

log = structlog.get_logger(__name__)


def supervise(settings: Settings) -> int:
    """Keep `settings.workers` workers serving on one port until a signal.

    Args:
        settings: The server's settings.

    Raises:
        StartupError: The server cannot listen where it should.

    Returns:
        The exit code of the process: 0 after a signal if every worker ended well, else 1.
    """
    check_grpc_port(settings)
    # From here on a signal ends it in good order, and everything below is removed.
    with _woken_by_signals() as wakeup, bind_ports(settings) as ports, shared_folder() as folder:
        log.info("workers listen", url=ports.shown)
        return Supervisor(settings, ports, folder).run(wakeup)


@dataclass(slots=True, eq=False)
class _Worker:
    place: int
    process: subprocess.Popen[bytes]
    channel: socket.socket
    serving: bool = False
    silent_s: float = 0.0


class Supervisor:
    """Starts workers one at a time, and replaces each that dies.

    If a worker cannot start and no other is alive, the server ends, as a single process would.
    While others are alive, the next try comes after a pause, which doubles each time. A worker that
    hangs is killed.

    Args:
        settings: The server's settings.
        ports: The bound sockets from which the workers accept connections.
        folder: Holds the files that the workers share: metrics and loads.
    """

    def __init__(self, settings: Settings, ports: Ports, folder: Path) -> None:
        self._places = range(settings.workers)
        self._drain_grace_s = settings.drain_grace_s
        self._settings_json = settings_as_json(settings)
        self._ports = ports
        self._folder = folder
        WorkerLoads.create(folder / LOADS_FILE, settings.workers)
        self._selector = selectors.DefaultSelector()
        self._workers: dict[int, _Worker] = {}
        self._start_at = time.monotonic()
        self._pause_s = FIRST_PAUSE_S
        self._stopping = False
        self._close_port_at: float | None = None
        self._exit_code = 0

    def run(self, wakeup: socket.socket) -> int:
        """Run until a signal has come and every worker has ended; gives the exit code.

        Args:
            wakeup: A socket from which the number of each signal is read, as one byte.
        """
        self._selector.register(wakeup, selectors.EVENT_READ)
        with self._selector:
            while self._workers or not self._stopping:
                self._fill_a_place()
                began = time.monotonic()
                for key, _ in self._selector.select(self._seconds_to_listen()):
                    if key.fileobj is wakeup:
                        self._pass_on(wakeup.recv(1)[0])
                    else:
                        self._hear(key.data)
                self._end_silent_workers(time.monotonic() - began)
                self._close_port_in_time()
        return self._exit_code

    def _seconds_to_listen(self) -> float | None:
        limits = [self._seconds_to_start()]
        if any(worker.serving for worker in self._workers.values()):
            limits.append(LISTENING_S)
        if self._close_port_at is not None:
            limits.append(max(0.0, self._close_port_at - time.monotonic()))
        return min((limit for limit in limits if limit is not None), default=None)

    def _close_port_in_time(self) -> None:
        """Close the port once the grace is over; the workers, which have copies, do so just after.

        Attempts to connect must be ignored before the first worker stops accepting.
        """
        if self._close_port_at is not None and time.monotonic() >= self._close_port_at:
            self._close_port_at = None
            for listener in self._ports.main:
                begin_no_connections(listener.fileno())
            self._ports.stop_listening()

    def _end_silent_workers(self, passed_s: float) -> None:
        """Kill the workers that hang; others take their places.

        Args:
            passed_s: Seconds since the last call. Far more than was waited for means that the whole
                server was paused, so the workers had no chance to give a sign.
        """
        for worker in self._workers.values():
            if not worker.serving:
                continue
            worker.silent_s += min(passed_s, 2 * LISTENING_S)
            if worker.silent_s > HANGS_AFTER_S:
                log.error("worker hangs", place=worker.place, process=worker.process.pid)
                worker.process.kill()
                worker.silent_s = -math.inf

    def _seconds_to_start(self) -> float | None:
        if self._stopping or self._starting() or len(self._workers) == len(self._places):
            return None
        return max(0.0, self._start_at - time.monotonic())

    def _starting(self) -> bool:
        return any(not worker.serving for worker in self._workers.values())

    def _fill_a_place(self) -> None:
        if self._seconds_to_start() == 0:
            place = min(set(self._places) - set(self._workers))
            self._workers[place] = worker = self._spawn(place)
            self._selector.register(worker.channel, selectors.EVENT_READ, worker)
            self._write_process_ids()

    def _spawn(self, place: int) -> _Worker:
        """Start a worker, in a session of its own: Ctrl-C must reach only the supervisor."""
        ours, theirs = socket.socketpair()
        main, metrics = (
            [port.fileno() for port in ports] for ports in (self._ports.main, self._ports.metrics)
        )
        # The current folder may hold a `service.py` of somebody else; this process's path does not.
        command = [sys.executable, "-P", "-m", "service.process.worker"]
        path = os.pathsep.join(sys.path)
        with theirs, hangups_held():
            process = subprocess.Popen(  # noqa: S603 - our own module
                [*command, _listed(main), _listed(metrics), str(theirs.fileno()), str(place)],
                pass_fds=[*main, *metrics, theirs.fileno()],
                env={**os.environ, FOLDER_VARIABLE: str(self._folder), "PYTHONPATH": path},
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
        # A worker that dies at once does not read them; `_hear` notes its end.
        with suppress(BrokenPipeError), cast("BinaryIO", process.stdin) as settings:
            settings.write(self._settings_json)
        return _Worker(place, process, ours)

    def _hear(self, worker: _Worker) -> None:
        """Read the channel of a worker: bytes mean that it serves, the end that it is dead."""
        if worker.channel.recv(1024):
            worker.silent_s = min(worker.silent_s, 0.0)
            if not worker.serving:
                worker.serving = True
                self._pause_s = FIRST_PAUSE_S
                log.info("worker serves", place=worker.place, process=worker.process.pid)
            return
        self._selector.unregister(worker.channel)
        worker.channel.close()
        code = worker.process.wait()
        del self._workers[worker.place]
        forget_gauges(self._folder, worker.place)
        WorkerLoads.forget(self._folder / LOADS_FILE, worker.place)
        self._write_process_ids()
        self._note_end(worker, code)

    def _note_end(self, worker: _Worker, code: int) -> None:
        if self._stopping:
            stopped_early = not worker.serving and code == -signal.SIGTERM
            self._exit_code = self._exit_code or int(code != 0 and not stopped_early)
        elif worker.serving:
            log.error("worker died; another takes its place", place=worker.place, code=code)
            self._start_at = time.monotonic()
        elif self._workers:
            log.error("worker could not start", again_in_s=self._pause_s, code=code)
            self._start_at = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        else:
            self._stopping, self._exit_code = True, 1

    def _pass_on(self, number: int) -> None:
        """Let the workers drain at the first signal that ends them, and kill them at the second."""
        if number == signal.SIGHUP:
            for worker in self._workers.values():
                worker.process.send_signal(number)
            return
        again, self._stopping = self._stopping, True
        if not again:
            grace_s = self._drain_grace_s if number == signal.SIGTERM else 0.0
            self._close_port_at = time.monotonic() + grace_s
        for worker in self._workers.values():
            first = number if worker.serving else signal.SIGTERM
            worker.process.send_signal(signal.SIGKILL if again else first)

    def _write_process_ids(self) -> None:
        processes = (worker.process.pid for worker in self._workers.values())
        write_process_ids(self._folder, processes)


def settings_as_json(settings: Settings) -> bytes:
    """Every setting, with its secrets, so that workers agree even after a file has changed."""
    return json.dumps(settings.model_dump(), default=_plain).encode()


def _plain(value: SecretStr | Path) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _listed(fds: Sequence[int]) -> str:
    """File descriptors as one argument of a worker."""
    return ",".join(map(str, fds))


@contextmanager
def _woken_by_signals() -> Iterator[socket.socket]:
    """Give a socket from which each SIGTERM, SIGINT and SIGHUP can be read, as one byte."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _leave_to_wakeup)
        release_hangups()
        try:
            yield ours
        finally:
            signal.set_wakeup_fd(-1)


def _leave_to_wakeup(number: int, frame: FrameType | None) -> None:
    """Do nothing: `Supervisor.run` acts on the byte that the signal writes to the socket."""
