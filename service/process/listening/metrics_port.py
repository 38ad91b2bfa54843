"""Answering `/metrics` on a port of its own, on the same event loop."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from uvicorn.server import ServerState

from service.http.app import Application
from service.http.connection.door import OpenDoor
from service.http.exchange import Exchange
from service.http.pages import Pages
from service.http.running import Running
from service.process.listening.uvicorn_config import uvicorn_config


class MetricsApplication(FastAPI):
    """Answers `GET /metrics`; its requests are counted and logged like all others.

    Args:
        running: The parts of the server that the metrics describe.
        exchange: The exchange that answers.
    """

    def __init__(self, running: Running, exchange: Exchange) -> None:
        super().__init__(
            openapi_url=None,
            redirect_slashes=False,
            telemetry={"tracing": False, "metrics": False, "logs": False},
            routes=[APIRoute("/metrics", Pages(running).metrics, response_class=Response)],
            exception_handlers={HTTPException: _raise, RequestValidationError: _raise},
        )
        self.add_middleware(exchange.around)


@asynccontextmanager
async def metrics_port(app: Application, listeners: Sequence[socket.socket]) -> AsyncIterator[None]:
    """Answer `/metrics` on these sockets, under the limits of the server's other connections.

    Args:
        app: The application whose metrics they are.
        listeners: Bound sockets, which several processes may share.
    """
    running, exchange = app.running, app.exchange
    config = uvicorn_config(
        MetricsApplication(running, exchange), running.settings, OpenDoor(exchange, app.crowd)
    )
    config.load()
    state = ServerState()

    def connection() -> asyncio.Protocol:
        make = cast("Callable[..., asyncio.Protocol]", config.http_protocol_class)
        return make(config=config, server_state=state, app_state={})

    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(connection, sock=listener) for listener in listeners]
    try:
        yield
    finally:
        for server in servers:
            server.close()
        for open_connection in list(state.connections):
            open_connection.shutdown()


async def _raise(_: Request, error: Exception) -> Response:
    raise error
