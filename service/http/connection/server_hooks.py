"""All of uvicorn's server that this one overrides or reaches into, as hooks of our own names."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from types import FrameType
from typing import cast

import uvicorn

from service.http.connection.uvicorn_hooks import Connection


class HookedServer(uvicorn.Server):
    """uvicorn's server; subclasses override its hooks.

    Args:
        config: uvicorn's settings.
        listens: Whether it opens the port that `config` names.
    """

    def __init__(self, config: uvicorn.Config, *, listens: bool = True) -> None:
        super().__init__(config)
        self._listens = listens

    # The hooks.

    def serving(self) -> None:
        """The application has started, and connections are accepted."""

    async def stopping(self) -> None:
        """The port is about to be closed."""

    def ticked(self) -> bool:
        """Called ten times a second; whether it is time to stop."""
        return self.should_exit

    def signalled(self, number: int) -> None:
        """A signal came that asks for an end; called in its handler."""

    # Tools for the hooks.

    @property
    def connections(self) -> AbstractSet[asyncio.Protocol]:
        """The connections that are open."""
        return self.server_state.connections

    @property
    def listeners(self) -> Sequence[int]:
        """File descriptors of the sockets on which the server listens by itself."""
        return [listener.fileno() for server in self.servers for listener in server.sockets]

    def close_after_answers(self) -> None:
        """Have every answer from now on say that it is its connection's last."""
        close = (b"connection", b"close")
        # uvicorn takes these for all answers whenever the time of day, which is among them, moves.
        self.config.encoded_headers = [*self.config.encoded_headers, close]
        self.server_state.default_headers = [*self.server_state.default_headers, close]
        for connection in self.connections:
            cast("Connection", connection).close_after_answer()

    def new_connection(self) -> asyncio.Protocol:
        """A protocol for a connection that the server did not accept by itself."""
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    # Methods that uvicorn calls.

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen."""
        # With a list of sockets, even an empty one, uvicorn opens none itself.
        await super().startup(sockets if self._listens else [])
        if self.started:
            self.serving()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, finish what was asked, and stop the application."""
        await self.stopping()
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """The main loop's; whether it ends."""
        self.should_exit = self.ticked()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's
        """Called in a signal's handler."""
        self.signalled(sig)
