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
from service.observe.metrics import Metrics
from service.process.acceptor import Acceptor
from service.process.model_pin import ModelPin
from service.queue.cpu_sharing import WorkerLoads
from service.queue.threads import any_at_work
from service.settings import Settings

# Balancers keep idle connections for a minute, as a rule. A server that closes them sooner does so,
# now and then, just as the next request is on its way.
KEEP_ALIVE_S: Final = 75
# New objects before the garbage collector looks at them, instead of 700: with thousands of
# connections each look is long, up to 25 ms, and requests leave it next to nothing to find.
OBJECTS_UNTIL_COLLECTION: Final = 10_000


@dataclass(frozen=True, slots=True)
class SharedPort:
    """A bound socket, and the processes that take connections from it.

    Attributes:
        listener: The socket.
        loads: What each process has to do.
        pin: The one model that all of them serve.
    """

    listener: socket.socket
    loads: WorkerLoads
    pin: ModelPin


class DrainingServer(HookedServer):
    """On SIGTERM, first turns unready and refuses new work, and a grace later closes its port.

    Balancers that poll readiness can move on before connections are refused. Ctrl-C skips the
    grace. The process then exits with 0; a second signal ends it on the spot, with 1.

    Args:
        config: uvicorn's settings.
        refuse_new: Begins the drain; called in a signal's handler.
        grace_s: Time between SIGTERM and closing the port, in seconds.
        shared: The port, if other processes have it too; by default `config` says which to open.
        on_started: Called once, when connections are accepted.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        refuse_new: Callable[[], None],
        grace_s: float,
        shared: SharedPort | None = None,
        on_started: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config, listens=shared is None)
        self._refuse_new = refuse_new
        self._grace_s = grace_s
        self._shared = shared
        self._acceptor: Acceptor | None = None
        self._on_started = on_started
        self._close_at: float | None = None

    def serving(self) -> None:
        """Take connections from a shared port, and say that the server is up."""
        if self._shared is not None:
            listener, loads = self._shared.listener, self._shared.loads
            self._acceptor = Acceptor(listener, loads, self.new_connection, self.connections)
            self._acceptor.start(self.config.backlog)
        # The objects of the start stay for good, so that no collection has to look at them again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(OBJECTS_UNTIL_COLLECTION)
        self._on_started()

    async def stopping(self) -> None:
        """Take no more connections from a shared port."""
        if self._acceptor is not None:
            await self._acceptor.stop()

    def signalled(self, number: int) -> None:
        """Begin to drain, or end a server that has not started."""
        if self._close_at is not None:
            os._exit(1)
        if not self.started:
            self.should_exit = True
            return
        self._refuse_new()
        self._close_at = time.monotonic() + (self._grace_s if number == signal.SIGTERM else 0)

    def ticked(self) -> bool:
        """Tell the other processes how many connections there are; whether the grace is over."""
        if self._acceptor is not None:
            self._acceptor.tell()
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
        settings: All of them.
        metrics: Where to count.
        shared: The port, if other processes have it too; by default the settings' own.
        on_started: Called once, when connections are accepted.

    Returns:
        The exit code of the process: 1 if the start failed or what runs the images hangs, else 0.
    """
    # The kernel keeps SIGTERM from a container's first process unless that has a handler.
    signal.signal(signal.SIGTERM, _end_before_started)
    let_threads_finish()
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
    refuse_new = app.running.detector.refuse_new
    server = DrainingServer(config, refuse_new, settings.drain_grace_s, shared, on_started)
    try:
        server.run()
    except SystemExit as end:  # uvicorn cannot have the port, and has logged why
        return int(end.code != 0)
    if app.hung or any_at_work():
        # The interpreter cannot end before a hanging engine, or a slow decoder, does.
        logging.shutdown()
        os._exit(int(app.hung))
    return 0


def _end_before_started(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's
    """Nothing is accepted yet that would have to be finished."""
    sys.exit(0)


def uvicorn_config(app: ASGIApp, settings: Settings, door: Door) -> uvicorn.Config:
    """How HTTP is spoken, whatever application answers.

    Args:
        app: The application.
        settings: All of them.
        door: Refuses requests before the application sees them.
    """
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        # Nothing here asks where a client is, or by which scheme it came.
        proxy_headers=False,
        server_header=False,
        # uvicorn calls it with its own arguments, once for each connection.
        http=cast("type[asyncio.Protocol]", partial(RefusingConnection, door)),
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_s),
    )
