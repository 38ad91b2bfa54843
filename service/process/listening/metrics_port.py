"""Answering `/metrics` on a port of its own, on the same event loop."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

from uvicorn.server import ServerState

from service.http.app import Application
from service.http.connection.door import OpenDoor
from service.http.metrics_app import MetricsApplication
from service.process.listening.uvicorn_config import uvicorn_config


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
