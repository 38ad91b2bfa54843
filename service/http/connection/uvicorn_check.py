"""The check that uvicorn still has, and still calls, what `uvicorn_hooks` relies on."""

import inspect
from dataclasses import dataclass
from types import CodeType
from typing import Final

import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.errors import StartupError

# pyproject.toml says the same.
SUPPORTED: Final = "uvicorn>=0.45,<0.55"


@dataclass(frozen=True, slots=True)
class Hook:
    """A method of uvicorn's that is overridden or called here.

    Attributes:
        owner: Its class.
        name: Its name.
        parameters: The names of its parameters, in order.
        callers: The functions of uvicorn's that name it.
    """

    owner: type
    name: str
    parameters: str
    callers: tuple[tuple[type, str], ...] = ()

    def complaint(self) -> str | None:
        """How it has changed, or None if it has not."""
        method = self.owner.__dict__.get(self.name)
        title = f"{self.owner.__name__}.{self.name}"
        if method is None:
            return f"{title} no longer exists"
        parameters = " ".join(inspect.signature(method).parameters)
        if parameters != self.parameters:
            return f"{title} now takes ({parameters}), not ({self.parameters})"
        for owner, caller in self.callers:
            if self.name not in _names_in(owner, caller):
                return f"{owner.__name__}.{caller} no longer calls {title}"
        return None


@dataclass(frozen=True, slots=True)
class Fields:
    """Attributes of uvicorn's objects that are read or set here.

    Attributes:
        owner: The class.
        names: Their names.
        set_in: The method that sets them first.
    """

    owner: type
    names: str
    set_in: str = "__init__"

    def complaint(self) -> str | None:
        """Which of them is missing, if one is."""
        there = _names_in(self.owner, self.set_in)
        missing = [name for name in self.names.split() if name not in there]
        return f"{self.owner.__name__} no longer sets {missing[0]}" if missing else None


def _names_in(owner: type, method: str) -> set[str]:
    """Every attribute and global that a method's code names."""
    function = owner.__dict__.get(method)
    return set() if function is None else _names_in_code(inspect.unwrap(function).__code__)


def _names_in_code(code: CodeType) -> set[str]:
    inner = (part for part in code.co_consts if isinstance(part, CodeType))
    return set(code.co_names).union(*map(_names_in_code, inner))


PROTOCOL, CYCLE, SERVER = HttpToolsProtocol, RequestResponseCycle, uvicorn.Server
USED: Final = (
    Hook(PROTOCOL, "__init__", "self config server_state app_state _loop"),
    Hook(PROTOCOL, "connection_made", "self transport"),
    Hook(PROTOCOL, "connection_lost", "self exc"),
    Hook(PROTOCOL, "data_received", "self data"),
    Hook(PROTOCOL, "pause_writing", "self"),
    Hook(PROTOCOL, "eof_received", "self"),
    Hook(PROTOCOL, "on_header", "self name value"),
    Hook(PROTOCOL, "on_headers_complete", "self"),
    Hook(PROTOCOL, "on_body", "self body"),
    Hook(PROTOCOL, "on_message_complete", "self"),
    Hook(PROTOCOL, "on_response_complete", "self", ((PROTOCOL, "on_headers_complete"),)),
    Hook(PROTOCOL, "shutdown", "self", ((SERVER, "shutdown"),)),
    Hook(PROTOCOL, "timeout_keep_alive_handler", "self", ((PROTOCOL, "on_response_complete"),)),
    Hook(PROTOCOL, "send_400_response", "self msg", ((PROTOCOL, "data_received"),)),
    Hook(PROTOCOL, "_unset_keepalive_if_required", "self", ((PROTOCOL, "data_received"),)),
    Hook(
        PROTOCOL,
        "_start_asgi_task",
        "self cycle app",
        ((PROTOCOL, "on_headers_complete"), (PROTOCOL, "on_response_complete")),
    ),
    Hook(
        CYCLE,
        "__init__",
        "self scope transport flow logger access_logger access_log default_headers message_event "
        "expect_100_continue keep_alive on_response",
    ),
    Hook(CYCLE, "run_asgi", "self app", ((PROTOCOL, "_start_asgi_task"),)),
    Hook(SERVER, "startup", "self sockets", ((SERVER, "_serve"),)),
    Hook(SERVER, "shutdown", "self sockets", ((SERVER, "_serve"),)),
    Hook(SERVER, "on_tick", "self counter", ((SERVER, "main_loop"),)),
    Hook(SERVER, "handle_exit", "self sig frame", ((SERVER, "capture_signals"),)),
    Fields(PROTOCOL, "access_log access_logger client cycle expect_100_continue flow headers"),
    Fields(PROTOCOL, "logger loop parser pipeline server_state timeout_keep_alive transport"),
    Fields(PROTOCOL, "timeout_keep_alive_task"),
    Fields(CYCLE, "body keep_alive response_complete response_started scope transport"),
    Fields(CYCLE, "disconnected message_event waiting_for_100_continue"),
    Fields(SERVER, "config server_state should_exit started"),
    Fields(SERVER, "servers", set_in="startup"),
    Fields(uvicorn.Config, "encoded_headers"),
    Fields(SERVER, "lifespan", set_in="_serve"),
    Fields(ServerState, "connections default_headers"),
    Fields(FlowControl, "write_paused"),
)


def check_uvicorn() -> None:
    """Refuse to start on a uvicorn that would not call the hooks here.

    Raises:
        StartupError: One of them is gone, or is called in another way.
    """
    for used in USED:
        complaint = used.complaint()
        if complaint is not None:
            raise StartupError(
                f"uvicorn {uvicorn.__version__} cannot be used: {complaint}; install {SUPPORTED!r}"
            )
