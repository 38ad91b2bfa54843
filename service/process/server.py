"""One server process: it loads the model, serves until a signal, and drains."""

import asyncio
import gc
import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Final, cast

import structlog
import uvicorn
from starlette.types import ASGIApp

from service.build import DEFAULT_MODEL, load_engine
from service.cpus import let_threads_finish
from service.engine.base import LoadableEngine
from service.errors import StartupError
from service.http.app import Application, create_app
from service.http.connection.door import Door
from service.http.connection.early_refusal import RefusingConnection
from service.http.connection.uvicorn_check import check_uvicorn
from service.http.connection.uvicorn_hooks import HookedServer
from service.imaging.memory import give_back_large_blocks
from service.observe.metrics import Metrics
from service.process.acceptor import Acceptor
from service.process.closing_port import HANDSHAKE_S, begin_no_connections
from service.process.model_pin import ModelPin
from service.queue.cpu_sharing import WorkerLoads
from service.queue.threads import any_at_work
from service.settings import Settings

# Exit code of a server whose engine hangs, or fails every image.
ENGINE_FAILED_CODE: Final = 3
# Seconds between two signs of life.
SIGN_S: Final = 1.0
# Load balancers usually keep idle connections for a minute. A server that closes them sooner
# sometimes does so just as the next request is on its way.
KEEP_ALIVE_S: Final = 75
# New objects until the garbage collector runs, instead of 700. With thousands of connections a
# collection takes up to 25 ms, and requests leave almost no garbage that it could find.
OBJECTS_UNTIL_COLLECTION: Final = 10_000


log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SharedPort:
    """A bound socket, and the processes that take connections from it.

    Attributes:
        listener: The socket.
        loads: The load of each process.
        pin: The one model that all of them serve.
        sign: Called every second as long as connections are accepted or answered.
    """

    listener: socket.socket
    loads: WorkerLoads
    pin: ModelPin
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
        shared: The port, if other processes share it; by default the server opens the port that
            `config` names.
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
            listener, loads = self._shared.listener, self._shared.loads
            self._acceptor = Acceptor(listener, loads, self.new_connection, self.connections)
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


def serve(
    settings: Settings,
    metrics: Metrics,
    shared: SharedPort | None = None,
    on_started: Callable[[], None] = lambda: None,
) -> int:
    """Serve until a signal.

    Args:
        settings: The server's settings.
        metrics: Where to count.
        shared: The port, if other processes share it; by default the one that `settings` names.
        on_started: Called once, when connections are accepted.

    Returns:
        The exit code of the process: 1 if the start failed or the engine or a decoder hangs; 130 if
        Ctrl-C ended the start; else 0.
    """
    # In a container this may be process 1, to which the kernel delivers only handled signals.
    signal.signal(signal.SIGTERM, _end_before_started)
    let_threads_finish()
    give_back_large_blocks()
    try:
        check_uvicorn()
        app = create_app(
            settings,
            _load(settings, shared),
            metrics,
            None if shared is None else shared.loads,
        )
    except StartupError as error:
        # ONNX Runtime's messages may have several lines.
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return run(app, settings, shared, on_started)


def _load(settings: Settings, shared: SharedPort | None) -> LoadableEngine:
    """Load the model, which must be the other processes' before the loading and after it."""
    if shared is None:
        return load_engine(settings)
    model = settings.model or DEFAULT_MODEL
    if model.is_file():
        shared.pin.check(model)
    engine = load_engine(settings)
    shared.pin.check(model)
    return engine


def run(
    app: Application,
    settings: Settings,
    shared: SharedPort | None = None,
    on_started: Callable[[], None] = lambda: None,
) -> int:
    """Serve an application until a signal; arguments and exit code are those of `serve`."""
    config = uvicorn_config(app, settings, app)
    server = DrainingServer(
        config,
        app.running.detector.drain,
        settings.drain_grace_s,
        shared,
        on_started,
        lambda: settings.max_failed_probes > 0 and app.running.dead_reason() is not None,
    )
    try:
        server.run()
    except SystemExit as end:  # uvicorn could not open the port, and has logged why
        return int(end.code != 0)
    if app.hung or any_at_work():
        # The interpreter would wait for the thread of a hanging engine or a slow decoder.
        logging.shutdown()
        os._exit(int(app.hung))
    return 0


def _end_before_started(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's
    """Exit with 0: no request was accepted yet, so none has to be finished."""
    sys.exit(0)


def uvicorn_config(app: ASGIApp, settings: Settings, door: Door) -> uvicorn.Config:
    """The settings of uvicorn.

    Args:
        app: The application.
        settings: The server's settings.
        door: Refuses requests before the application sees them.
    """
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        # The server uses neither the client's address nor the scheme of the request.
        proxy_headers=False,
        server_header=False,
        # uvicorn calls it with its own arguments, once for each connection.
        http=cast("type[asyncio.Protocol]", partial(RefusingConnection, door)),
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_s),
    )
