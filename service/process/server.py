"""One server process: it loads the model, serves until a signal, and drains."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Final

import structlog
import uvicorn

from service.build import first_file, load_first
from service.cpus import count_cpus, let_threads_finish
from service.engine.base import LoadableEngine
from service.errors import StartupError
from service.heap import give_back_large_blocks
from service.http.access.keys import ApiKeys
from service.http.app import Application, create_app
from service.http.connection.server_hooks import HookedServer
from service.http.connection.uvicorn_check import check_uvicorn
from service.models.repository import ModelFile
from service.models.shared_state import StateFile
from service.observe.metrics import Metrics
from service.process.hangup import reload_at_hangup
from service.process.listening.acceptor import Acceptor
from service.process.listening.closing_port import HANDSHAKE_S, begin_no_connections
from service.process.listening.grpc_port import check_grpc_port, grpc_port
from service.process.listening.metrics_port import metrics_port
from service.process.listening.open_files import allowed_connections
from service.process.listening.ports import Ports, bind_ports
from service.process.listening.uvicorn_config import uvicorn_config
from service.queue.cpu_sharing import WorkerLoads
from service.queue.threads import any_at_work
from service.settings import Settings

# Exit code of a server whose engine hangs, or fails every image.
ENGINE_FAILED_CODE: Final = 3
# Seconds between two signs of life.
SIGN_S: Final = 1.0
# New objects until the garbage collector runs, instead of 700. With thousands of connections a
# collection takes up to 25 ms, and requests leave almost no garbage that it could find.
OBJECTS_UNTIL_COLLECTION: Final = 10_000


log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SharedPort:
    """Bound sockets, and the processes that take connections from them.

    Attributes:
        listeners: The sockets.
        loads: The load of each process.
        models: Which files the models are that all of them serve.
        sign: Called every second as long as connections are accepted or answered.
    """

    listeners: Sequence[socket.socket]
    loads: WorkerLoads
    models: StateFile
    sign: Callable[[], None]


class DrainingServer(HookedServer):
    """On SIGTERM, turns unready at once, but serves on and closes its port only `grace_s` later.

    During the grace, balancers that poll readiness move on. Each answer closes its connection, so
    that clients open a new one, perhaps to another server. Ctrl-C skips the grace. Once all that
    was asked is answered, the process exits with 0; a second signal ends it at once, with 1.

    Args:
        config: uvicorn's settings.
        drain: Turns the server unready; called in a signal handler.
        grace_s: Time between SIGTERM and closing the port, in seconds.
        shared: The port, if other processes share it; by default the server accepts from the
            sockets that `run` is given.
        on_started: Called once, when connections are accepted.
        is_beyond_hope: Whether the engine will not come back, so that only a new process helps.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Callable[[], None],
        grace_s: float,
        shared: SharedPort | None = None,
        on_started: Callable[[], None] = lambda: None,
        is_beyond_hope: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(config, listens=shared is None)
        self._drain = drain
        self._grace_s = grace_s
        self._shared = shared
        self._acceptor: Acceptor | None = None
        self._on_started = on_started
        self._is_beyond_hope = is_beyond_hope
        self._signs: asyncio.Task[None] | None = None
        self._close_at: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def serving(self) -> None:
        """Accept connections from a shared port, and report that the server is up."""
        self._loop = asyncio.get_running_loop()
        if self._shared is not None:
            listeners, loads = self._shared.listeners, self._shared.loads
            self._acceptor = Acceptor(listeners, loads, self.new_connection, self.connections)
            self._acceptor.start(self.config.backlog)
            self._signs = asyncio.create_task(self._give_signs(self._shared.sign))
        # All objects that exist now live on, so no collection need visit them again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(OBJECTS_UNTIL_COLLECTION)
        self._on_started()

    async def _give_signs(self, sign: Callable[[], None]) -> None:
        """Tell the supervisor that the event loop runs, until it ends, and while it drains."""
        while True:
            sign()
            await asyncio.sleep(SIGN_S)

    async def stopping(self) -> None:
        """Accept the connections that have begun, and no others.

        A shared port is another process's to close.
        """
        for listener in self.listeners:
            begin_no_connections(listener)
        await asyncio.sleep(HANDSHAKE_S)
        if self._acceptor is not None:
            await self._acceptor.stop()

    def signalled(self, number: int) -> None:
        """Begin to drain; end at once if the server has not started, or is draining already."""
        if self._close_at is not None:
            os._exit(1)
        if self._loop is None:
            self.should_exit = True
            return
        self._drain()
        self._loop.call_soon_threadsafe(self.close_after_answers)
        self._close_at = time.monotonic() + (self._grace_s if number == signal.SIGTERM else 0)

    def ticked(self) -> bool:
        """Tell the other processes how many connections this one has; give whether to stop now."""
        if self._acceptor is not None:
            self._acceptor.tell()
        if self._close_at is None and self._is_beyond_hope():
            log.error("the engine does not come back; the server ends so that it is started again")
            logging.shutdown()
            os._exit(ENGINE_FAILED_CODE)
        is_over = self._close_at is not None and time.monotonic() >= self._close_at
        return is_over or super().ticked()


class EarlySignals:
    """Ends the start of a server at SIGTERM or Ctrl-C, from the construction on.

    The exception that does so does not always arrive: compiled libraries that are being imported or
    called turn it into an error of their own.

    Attributes:
        code: The exit code that a signal asks for, once one has come. It is 0 for SIGTERM: no
            request was accepted yet, so none has to be finished.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        # In a container this may be process 1, to which the kernel delivers only handled signals.
        signal.signal(signal.SIGTERM, self._end)
        # Shells make their background jobs ignore it, and it stays so.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._end)

    def _end(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self.code = 130
            raise KeyboardInterrupt
        self.code = 0
        sys.exit(0)


def serve(
    settings: Settings,
    metrics: Metrics,
    ports: Ports | None = None,
    shared: SharedPort | None = None,
) -> int:
    """Serve until a signal.

    Args:
        settings: The server's settings.
        metrics: Where to count.
        ports: The bound sockets; by default those that `settings` name are bound now.
        shared: The processes that share them, if there are several.

    Returns:
        The exit code of the process: 1 if the start failed or the engine or a decoder hangs; 130 if
        Ctrl-C ended the start; else 0.
    """
    early = EarlySignals()
    let_threads_finish()
    give_back_large_blocks()
    allowed = allowed_connections(settings.max_connections)
    settings = settings.model_copy(update={"max_connections": allowed})
    try:
        check_uvicorn()
        keys = ApiKeys.of(settings)
        if ports is None:
            check_grpc_port(settings)
        with bind_ports(settings) if ports is None else ports as bound:
            loads = None if shared is None else shared.loads
            file, engine = _load(settings, shared)
            app = create_app(settings, engine, metrics, loads, keys, file)
            # A model that is replaced is kept by nothing here.
            del engine
            _log_cpus(settings)
            if early.code is not None:
                return early.code
            bound.listen()
            return run(app, settings, bound, shared)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if early.code is not None:
            return early.code
        if not isinstance(error, StartupError):
            raise
        tell_error(error)
        return 1


def tell_error(error: StartupError) -> None:
    """Write why the server does not start, in one line."""
    # ONNX Runtime's messages may have several lines.
    sys.stderr.write(f"error: {' '.join(str(error).split())}\n")


def _log_cpus(settings: Settings) -> None:
    found = count_cpus()
    log.info("CPUs", cpus=found.cpus, workers=settings.workers, source=found.source)


def _load(settings: Settings, shared: SharedPort | None) -> tuple[ModelFile, LoadableEngine]:
    """Load the first model, which must be the other processes' before the loading and after it."""
    if shared is None:
        return load_first(settings)
    seen = shared.models.read().seen
    file = first_file(settings, seen)
    if file.path.is_file():
        shared.models.check(file)
    file, engine = load_first(settings, seen)
    shared.models.check(file)
    return file, engine


def run(
    app: Application,
    settings: Settings,
    ports: Ports,
    shared: SharedPort | None = None,
    on_started: Callable[[], None] = lambda: None,
) -> int:
    """Serve an application until a signal.

    Args:
        app: The application.
        settings: The server's settings.
        ports: The bound sockets; they are closed at the end.
        shared: The processes that share them, if there are several.
        on_started: Called once, when connections are accepted.

    Returns:
        The exit code of the process, as that of `serve`.
    """

    def started() -> None:
        reload_at_hangup(app.reload)
        if ports.shown:
            log.info("the server listens", url=ports.shown)
        on_started()

    app.beside = partial(_other_ports, app, settings, ports)
    server = DrainingServer(
        uvicorn_config(app, settings, app),
        app.running.pipeline.drain,
        settings.drain_grace_s,
        shared,
        started,
        lambda: settings.max_failed_probes > 0 and app.running.dead_reason() is not None,
    )
    try:
        server.run(list(ports.main))
    except SystemExit as end:  # the application could not start, and uvicorn has logged why
        return int(end.code != 0)
    ports.close()
    if app.hung or any_at_work():
        # The interpreter would wait for the thread of a hanging engine or a slow decoder.
        logging.shutdown()
        os._exit(int(app.hung))
    return 0


@asynccontextmanager
async def _other_ports(app: Application, settings: Settings, ports: Ports) -> AsyncIterator[None]:
    """The ports beside that of HTTP, from the application's start to its end."""
    async with AsyncExitStack() as stack:
        if ports.metrics:
            await stack.enter_async_context(metrics_port(app, ports.metrics))
        if settings.grpc_port is not None:
            await stack.enter_async_context(grpc_port(app))
        yield
