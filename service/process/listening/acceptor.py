"""Accepts connections from a port that several processes share, and keeps their counts even."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import structlog

from service.queue.cpu_sharing import WorkerLoads

# How long a process leaves a new connection to the processes that have fewer.
COURTESY_S: Final = 0.002
# How long it stops accepting when file descriptors or memory run out.
SHORTAGE_S: Final = 1.0

log = structlog.get_logger(__name__)


class Acceptor:
    """Accepts connections one by one, but first leaves each briefly to processes with fewer.

    Otherwise the process that wakes up first would take, and keep, all connections of a burst. If
    no other process has taken a connection after `COURTESY_S`, this one does: the others may be
    busy, or hang.

    Args:
        listeners: Bound sockets that all processes share.
        loads: The connection counts of all processes.
        make_protocol: Makes the protocol of a new connection.
        connections: The protocols of this process's open connections.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        loads: WorkerLoads,
        make_protocol: Callable[[], asyncio.Protocol],
        connections: AbstractSet[asyncio.Protocol],
    ) -> None:
        self._listeners = listeners
        self._loads = loads
        self._make_protocol = make_protocol
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._starting: dict[asyncio.Task[object], asyncio.Protocol] = {}
        self._pause: asyncio.TimerHandle | None = None

    def start(self, backlog: int) -> None:
        """Listen, and accept connections from now on; `backlog` of them may wait in the kernel."""
        for listener in self._listeners:
            listener.setblocking(False)
            listener.listen(backlog)
        self.tell()
        self._watch()

    async def stop(self) -> None:
        """Accept no more, and wait until the protocols of all accepted connections are set up."""
        if self._pause is not None:
            self._pause.cancel()
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()
        self._loads.leave()
        await asyncio.gather(*self._starting, return_exceptions=True)

    def tell(self) -> None:
        """Tell the other processes how many connections this one has."""
        self._loads.tell_connections(self._count())

    def _count(self) -> int:
        new = sum(protocol not in self._connections for protocol in self._starting.values())
        return len(self._connections) + new

    def _watch(self) -> None:
        for listener in self._listeners:
            self._loop.add_reader(listener, self._offered, listener)

    def _offered(self, listener: socket.socket) -> None:
        fewest = self._loads.fewest_connections_elsewhere()
        if fewest is not None and fewest < self._count():
            self._look_away(COURTESY_S)
        else:
            self._take(listener)

    def _look_away(self, seconds: float) -> None:
        for listener in self._listeners:
            self._loop.remove_reader(listener)
        self._pause = self._loop.call_later(seconds, self._look_again)

    def _look_again(self) -> None:
        self._pause = None
        self._watch()
        for listener in self._listeners:
            if self._pause is None:
                self._take(listener)

    def _take(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # another process took it, or the client is gone
        except OSError as error:
            log.warning("cannot accept connections", reason=str(error))
            self._look_away(SHORTAGE_S)
            return
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        protocol = self._make_protocol()
        task = self._loop.create_task(
            self._loop.connect_accepted_socket(lambda: protocol, connection)
        )
        self._starting[task] = protocol
        task.add_done_callback(self._started)
        self.tell()

    def _started(self, task: asyncio.Task[object]) -> None:
        del self._starting[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("a client left at once", reason=str(error))
