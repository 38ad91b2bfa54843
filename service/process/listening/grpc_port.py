"""The port of gRPC: whether it can be opened, and opening it beside the server."""

import socket
from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from service.errors import StartupError
from service.process.listening.ports import bind_host
from service.settings import Settings

if TYPE_CHECKING:
    # The supervisor of workers neither needs nor loads what serves.
    from service.http.app import Application


def check_grpc_port(settings: Settings) -> None:
    """See that the port can be opened, before the model is loaded.

    Raises:
        StartupError: The extra is not installed, or the port is in use or may not be used.
    """
    if settings.grpc_port is None:
        return
    if find_spec("grpc") is None or find_spec("grpc_health") is None:
        raise StartupError(
            "grpc_port needs the extra grpc: install yolox-serve[grpc], or unset grpc_port"
        )
    listeners: list[socket.socket] = bind_host(settings.host, settings.grpc_port)
    for listener in listeners:
        listener.close()


def grpc_port(app: "Application") -> AbstractAsyncContextManager[None]:
    """Answer gRPC calls while the application runs."""
    # Only a server with this port needs the extra.
    from service.grpc import port  # noqa: PLC0415

    return port.grpc_port(app.running)
