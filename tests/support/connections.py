"""A connection of the server in this process, and applications to put behind it."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

import uvicorn
import uvloop
from prometheus_client import generate_latest
from uvicorn.server import ServerState

from service.http.connection.crowd import Crowd
from service.http.connection.door import OpenDoor
from service.http.connection.early_refusal import RefusingConnection
from service.http.exchange import Exchange
from service.observe.metrics import Metrics

POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n"


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


class FakeDoor(OpenDoor):
    """Refuses a request with the application that a function gives for it, if any."""

    def __init__(
        self, refuses: Any = None, rejects: Any = None, max_connections: int = 100
    ) -> None:
        metrics = Metrics()
        self._registry = metrics.registry
        super().__init__(Exchange(metrics), Crowd(metrics, max_connections))
        self._refuses = refuses
        self._rejects = rejects or super().rejecting

    def counts(self) -> str:
        """The metrics, as Prometheus reads them."""
        return generate_latest(self._registry).decode()

    def refusing(self, scope: Any) -> Any:
        return self._refuses(scope) if self._refuses else None

    def rejecting(self, error: Any) -> Any:
        return self._rejects(error)


def exchange(*sent: bytes, app: Any = application, refuses: Any = None) -> bytes:
    """Everything that a server sends in answer to these bytes, until it hangs up."""

    async def main() -> bytes:
        config = uvicorn.Config(app, log_config=None, timeout_keep_alive=1)
        config.load()
        loop = asyncio.get_running_loop()
        state = ServerState()
        server = await loop.create_server(
            lambda: RefusingConnection(FakeDoor(refuses), config, state, {}),
            "127.0.0.1",
            0,
        )
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for part in sent:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.05)
            return await asyncio.wait_for(reader.read(), 20)
        finally:
            writer.close()
            server.close()

    return uvloop.run(main())


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"


def refuses_posts(scope: Mapping[str, Any]) -> Any:
    return refusing if scope["method"] == "POST" else None


async def refusing(scope: Any, receive: Any, send: Any) -> None:
    """Refuses a POST; the header `x-task` says whether a task was started for it."""
    if scope["method"] != "POST":
        await application(scope, receive, send)
        return
    task = b"none" if asyncio.current_task() is None else b"one"
    headers = [(b"x-task", task), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


HANGS_UP, SAYS_NO_MORE = b"(hangs up)", b"(says no more)"


class Wire:
    """A transport without a peer; remembers what is written."""

    def __init__(self) -> None:
        self.written = list[bytes]()
        self.closing = False

    def write(self, data: bytes) -> None:
        assert not self.closing
        self.written.append(data)

    def write_eof(self) -> None:
        self.written.append(SAYS_NO_MORE)

    def close(self) -> None:
        if not self.closing:
            self.written.append(HANGS_UP)
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def get_extra_info(self, _name: str, default: object = None) -> object:
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """Do nothing: `fed` sends the next piece all the same."""

    def resume_reading(self) -> None:
        """Do nothing: `fed` never pauses."""


def fed(
    *pieces: bytes,
    app: Any = application,
    refuses: Any = None,
    rejects: Any = None,
    turns: int = 10,
) -> list[bytes]:
    """The writes of a server, call by call, when it reads exactly these pieces.

    After each piece the event loop runs `turns` times.
    """

    async def main() -> list[bytes]:
        config = uvicorn.Config(app, log_config=None)
        config.load()
        door, wire = FakeDoor(refuses, rejects), Wire()
        protocol = RefusingConnection(door, config, ServerState(), {})
        protocol.connection_made(cast("asyncio.Transport", wire))
        for piece in pieces:
            if wire.closing:
                break
            await _outside_tasks(lambda piece=piece: protocol.data_received(piece))
            for _ in range(turns):
                await asyncio.sleep(0)
        written = wire.written.copy()
        protocol.connection_lost(None)
        return written

    return asyncio.run(main())


async def _outside_tasks(call: Callable[[], None]) -> None:
    """Make a call from the event loop and outside of any task, as for a packet."""
    done = asyncio.get_running_loop().create_future()

    def make() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # noqa: BLE001 - passed on to the test
            done.set_exception(error)

    asyncio.get_running_loop().call_soon(make)
    await done


def sent(method: bytes, body: bytes) -> bytes:
    return b"%b / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (method, len(body), body)


# A body that a parser which lost its place would take for a head.
TRAP = b"GET / HTTP/1.1\r\nHost: x\r\nupgrade: x\r\n\r\n"


async def echoing(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the method and the body of the request."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["method"].encode() + body})


async def refusing_all(scope: Any, receive: Any, send: Any) -> None:
    await refusing(scope | {"method": "POST"}, receive, send)


async def either(scope: Any, receive: Any, send: Any) -> None:
    await (refusing if scope["method"] == "POST" else echoing)(scope, receive, send)


CLOSES = POST.replace(b"Host", b"Connection: close\r\nHost")


EMPTY_POST = POST.replace(b"90000", b"0")
