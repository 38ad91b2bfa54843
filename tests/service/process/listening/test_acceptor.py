import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from service.process.listening import acceptor as module
from service.process.listening.acceptor import Acceptor
from service.queue.cpu_sharing import WorkerLoads

# Long enough that it is seen on a machine that others share.
COURTESY_S = 0.3


class Listener(socket.socket):
    """A listener that fails this number of times, as where no file can be opened."""

    shortages = 0

    def accept(self) -> tuple[socket.socket, Any]:
        if self.shortages:
            self.shortages -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


class Bench:
    """An acceptor, the process beside it, which a test plays, and those who speak."""

    def __init__(self, folder: Path) -> None:
        WorkerLoads.create(folder / "team", 2)
        self.loads, self.other = (WorkerLoads.attach(folder / "team", place) for place in range(2))
        self.listener = Listener()
        self.listener.bind(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.connections: set[asyncio.Protocol] = set()
        self.clients: list[asyncio.StreamWriter] = []
        self.acceptor = Acceptor(
            [self.listener], self.loads, lambda: Greeter(self), self.connections
        )

    async def come(self) -> asyncio.StreamReader:
        """Come as a client."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.clients.append(writer)
        return reader

    async def connect(self) -> None:
        """Come as a client, and wait for a greeting."""
        assert await asyncio.wait_for((await self.come()).readexactly(5), 10) == b"hello"

    async def all_leave(self) -> None:
        """Close every client's connection."""
        for client in self.clients:
            client.close()
            with contextlib.suppress(ConnectionError):
                await client.wait_closed()
        while self.connections:
            await asyncio.sleep(0.01)


class Greeter(asyncio.Protocol):
    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._bench.connections.add(self)
        transport.write(b"hello")

    def connection_lost(self, exc: Exception | None) -> None:
        self._bench.connections.discard(self)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COURTESY_S", COURTESY_S)
    monkeypatch.setattr(module, "SHORTAGE_S", 0.05)


def on_bench(test: Callable[[Bench], Awaitable[None]], folder: Path) -> None:
    async def main() -> None:
        bench = Bench(folder)
        bench.acceptor.start(backlog=10)
        try:
            await test(bench)
        finally:
            await bench.all_leave()
            if bench.listener.fileno() >= 0:
                await bench.acceptor.stop()

    asyncio.run(main())


def test_connections_are_taken_and_told(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        assert bench.other.fewest_connections_elsewhere() == 0
        for _ in range(3):
            await bench.connect()
        assert bench.other.fewest_connections_elsewhere() == 3
        await bench.all_leave()
        bench.acceptor.tell()
        assert bench.other.fewest_connections_elsewhere() == 0

    on_bench(body, tmp_path)


def test_a_connection_is_left_for_a_moment_to_who_has_fewer(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.connect()
        bench.other.tell_connections(0)
        began = time.monotonic()
        await bench.connect()
        assert time.monotonic() - began >= COURTESY_S
        bench.other.tell_connections(2)
        began = time.monotonic()
        await bench.connect()
        assert time.monotonic() - began < COURTESY_S

    on_bench(body, tmp_path)


def test_where_no_file_can_be_opened_it_tries_again_later(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.listener.shortages = 3
        await bench.connect()
        assert bench.listener.shortages == 0
        await bench.connect()

    on_bench(body, tmp_path)


def test_every_listener_is_served(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        path = str(tmp_path / "socket")
        with socket.socket(socket.AF_UNIX) as local, Listener() as port:
            local.bind(path)
            port.bind(("127.0.0.1", 0))
            acceptor = Acceptor([local, port], bench.loads, lambda: Greeter(bench), set())
            acceptor.start(backlog=10)
            port.shortages = 1
            opened = [
                await asyncio.open_connection(*port.getsockname()),
                await asyncio.open_unix_connection(path),
            ]
            for reader, writer in opened:
                assert await asyncio.wait_for(reader.readexactly(5), 10) == b"hello"
                bench.clients.append(writer)
            await acceptor.stop()
            assert (local.fileno(), port.fileno()) == (-1, -1)

    on_bench(body, tmp_path)


@pytest.mark.parametrize("connections", [0, 1])
def test_who_stops_takes_nothing_more_and_is_waited_for_by_nobody(
    tmp_path: Path, connections: int
) -> None:
    async def body(bench: Bench) -> None:
        for _ in range(connections):
            await bench.connect()
        # With one, the next is left to the other for a moment, in which this one stops.
        bench.other.tell_connections(0)
        reader = await bench.come()
        await asyncio.sleep(0.05)
        await bench.acceptor.stop()
        assert bench.other.fewest_connections_elsewhere() is None
        if connections:
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(5)
        else:
            assert await reader.readexactly(5) == b"hello"
        with pytest.raises(ConnectionError):
            await bench.connect()
        assert bench.listener.fileno() == -1

    on_bench(body, tmp_path)
