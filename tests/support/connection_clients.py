"""Blocking clients of a connection of the server in this process."""

import asyncio
from collections.abc import Callable
from typing import Any

import uvicorn
import uvloop
from uvicorn.server import ServerState

from service.http.connection.early_refusal import RefusingConnection
from support.connections import FakeDoor


def serving_connections(app: Any, client: Callable[[Any], Any], door: FakeDoor) -> Any:
    """Give a client, which runs in a thread, the address of a server; gives what it returns."""

    async def main() -> Any:
        config = uvicorn.Config(app, log_config=None)
        config.load()
        state, loop = ServerState(), asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: RefusingConnection(door, config, state, {}), "127.0.0.1", 0
        )
        try:
            return await loop.run_in_executor(None, client, server.sockets[0].getsockname())
        finally:
            server.close()
            for connection in list(state.connections):
                connection.transport.abort()
            await asyncio.sleep(0.05)

    return uvloop.run(main())
