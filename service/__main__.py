"""`python -m service`: settings from flags and environment, one line for what is wrong."""

import logging
import math
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from service.app import create_app
from service.errors import StartupError
from service.logs import configure_logs
from service.protocol import BoundedHttpProtocol
from service.settings import Settings
from service.startup import load_engine

# Balancers keep idle connections for a minute, as a rule. A server that closes them sooner does so,
# now and then, just as the next request is on its way.
KEEP_ALIVE_S: Final = 75


class DrainingServer(uvicorn.Server):
    """On SIGTERM, first turns unready and refuses new work, and a grace later closes its port.

    Balancers that poll readiness can move on before connections are refused. Ctrl-C skips the
    grace. The process then exits with 0; a second signal ends it on the spot, with 1.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, grace_s: float) -> None:
        super().__init__(config)
        self._app = app
        self._grace_s = grace_s
        self._close_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the base's
        """Begin to drain; called by the operating system's signal."""
        if self._close_at is not None:
            os._exit(1)
        if not self.started:
            self.should_exit = True
            return
        self._app.state.running.detector.refuse_new()
        self._close_at = time.monotonic() + (self._grace_s if sig == signal.SIGTERM else 0)

    async def on_tick(self, counter: int) -> bool:
        """Runs ten times a second; says whether it is time to close."""
        if self._close_at is not None and time.monotonic() >= self._close_at:
            self.should_exit = True
        return await super().on_tick(counter)


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; the exit code is 0 then, 1 if the start failed, 2 on wrong usage."""
    try:
        settings = CliApp.run(Settings, cli_args=arguments, cli_exit_on_error=True)
    except (ValidationError, SettingsError) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2
    configure_logs(settings.log_format, settings.log_level)
    try:
        app = create_app(settings, load_engine(settings))
    except StartupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    server = DrainingServer(_uvicorn_config(app, settings), app, settings.drain_grace_s)
    try:
        server.run()
    except SystemExit:  # uvicorn's word for a port that cannot be had; it has told the log
        return 1
    if app.state.hung or any(not thread.daemon for thread in threading.enumerate()[1:]):
        # The interpreter would wait for a hanging engine, or a slow decoder, for ever.
        logging.shutdown()
        os._exit(int(app.state.hung))
    return 0


def _uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        http=BoundedHttpProtocol,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_s),
    )


def _one_line(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}" for item in error.errors()
    )


if __name__ == "__main__":
    sys.exit(main())
