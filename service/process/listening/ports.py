"""The ports and the unix socket that a server listens on."""

import errno
import os
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from service.errors import StartupError
from service.settings import Settings

# Connections that may wait in the kernel; uvicorn's own number.
BACKLOG: Final = 2048
ADVICE: Final = {
    errno.EADDRINUSE: "stop the server that listens there, or listen elsewhere",
    errno.EACCES: "listen where this user may",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose another --host",
    errno.ENOENT: "create its folder, or listen elsewhere",
}
# Hosts without IPv6 still have names that resolve to IPv6 addresses.
ABSENT: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class Ports:
    """Sockets that are bound before the model is loaded, and listen when it is.

    Until then, clients are refused. The context closes them.

    Args:
        main: The sockets from which requests are accepted.
        metrics: The sockets that answer /metrics alone, if there are any.
        shown: The address of `main`, for people to read.
        remove: Called once after the sockets are closed.
    """

    def __init__(
        self,
        main: Sequence[socket.socket],
        metrics: Sequence[socket.socket] = (),
        shown: str = "",
        remove: Callable[[], None] = lambda: None,
    ) -> None:
        self.main = tuple(main)
        self.metrics = tuple(metrics)
        self.shown = shown
        self._remove: Callable[[], None] | None = remove

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def listen(self) -> None:
        """Let clients connect.

        Raises:
            StartupError: Another server, started at the same time, was sooner.
        """
        for listener in (*self.main, *self.metrics):
            try:
                listener.listen(BACKLOG)
            except OSError as error:
                raise _cannot_listen(_shown(listener), error) from error

    def stop_listening(self) -> None:
        """Close the sockets from which requests are accepted, and no others."""
        for listener in self.main:
            listener.close()

    def close(self) -> None:
        """Close every socket, and remove the file of a unix socket."""
        for listener in (*self.main, *self.metrics):
            listener.close()
        remove, self._remove = self._remove, None
        if remove is not None:
            remove()


def bind_ports(settings: Settings) -> Ports:
    """Bind what the settings name.

    Raises:
        StartupError: The port or the path is in use, or may not be used.
    """
    if settings.unix_socket is None:
        main, remove = bind_host(settings.host, settings.port), lambda: None
    else:
        path = settings.unix_socket
        listener = bind_path(path, int(settings.unix_socket_mode, 8))
        main, remove = [listener], _remover(path)
    bound = Ports(main, (), _shown(main[0], settings.host), remove)
    if settings.metrics_port is None:
        return bound
    try:
        metrics = bind_host(settings.host, settings.metrics_port)
    except StartupError:
        bound.close()
        raise
    return Ports(main, metrics, bound.shown, remove)


def bind_host(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of a host that this machine has; port 0 is any free one.

    Raises:
        StartupError: The host is unknown, or one of its addresses cannot be used.
    """
    bound = list[socket.socket]()
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        families = {family for family, *_ in found}
        absent: OSError | None = None
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                chosen = bound[0].getsockname()[1] if bound else port
                bound.append(_bind(family, (address[0], chosen, *address[2:]), len(families) > 1))
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
                absent = error
        if not bound and absent is not None:
            raise absent
    except OSError as error:
        for listener in bound:
            listener.close()
        raise _cannot_listen(_url(host, port), error) from error
    return bound


def bind_path(path: Path, mode: int) -> socket.socket:
    """A unix socket that listens already, in place of one that a dead server left behind.

    It listens at once, so that another server can tell it from such a one. Clients that connect
    before the model is loaded wait.

    Args:
        path: Its path.
        mode: The permissions of its file.

    Raises:
        StartupError: A server listens there, another file is there, or it cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        _clear(path)
        # The file has its permissions from the first moment on.
        before = os.umask(0o777 & ~mode)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_listen(f"unix:{path}", error) from error
    return listener


def _bind(family: int, address: tuple[object, ...], only_ipv6: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Where the host has IPv4 addresses too, they have sockets of their own.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_ipv6)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on.

    Raises:
        OSError: Somebody listens, or the path is no socket.
    """
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError(errno.EEXIST, "a file that is no socket is there")
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _remover(path: Path) -> Callable[[], None]:
    """A function that removes a socket's file, unless another server has put its own there."""
    own = _identity(path)

    def remove() -> None:
        if own is not None and _identity(path) == own:
            path.unlink(missing_ok=True)

    return remove


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _cannot_listen(where: str, error: OSError) -> StartupError:
    reason = error.strerror or str(error)
    advice = ADVICE.get(error.errno or 0, "listen elsewhere")
    if isinstance(error, socket.gaierror):
        advice = "choose another --host"
    return StartupError(f"cannot listen on {where}: {reason}; {advice}")


def _shown(listener: socket.socket, host: str | None = None) -> str:
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{name}"
    return _url(name[0] if host is None else host, name[1])


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
