"""Servers without a model, in this process, which a test puts behind the edge."""

import contextlib
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from benchmarks.qa.rig.programs import free_port


@dataclass
class Replica:
    """A server on an address of its own, which remembers what it was asked.

    Attributes:
        answer: Answers a request; by default with status 200 and the replica's address.
        asked: The headers of each request.
        connections: Number of connections that were made to it.
    """

    host: str
    answer: Callable[[BaseHTTPRequestHandler], None]
    asked: list[Message] = field(default_factory=list)
    connections: int = 0


def answering(status: int, body: bytes = b"{}") -> Callable[[BaseHTTPRequestHandler], None]:
    """A replica's way to answer: always with this status."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def dropping(request: BaseHTTPRequestHandler) -> None:
    """A replica's way not to answer: it ends, as far as the client can see."""
    request.close_connection = True


@contextlib.contextmanager
def replicas(
    *answers: Callable[[BaseHTTPRequestHandler], None],
) -> Iterator[tuple[int, list[Replica]]]:
    """A replica for each way to answer; gives the port, which all have, and the replicas."""
    port = free_port()
    made = [Replica(f"127.0.0.{2 + n}", answer) for n, answer in enumerate(answers)]
    with contextlib.ExitStack() as opened:
        for replica in made:
            server = opened.enter_context(_server(replica, port))
            opened.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        yield port, made


def _server(replica: Replica, port: int) -> socketserver.BaseServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            replica.connections += 1

        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            replica.asked.append(self.headers)
            replica.answer(self)

        do_GET = do_POST = handle_any  # noqa: N815 - their names there

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    server = ThreadingHTTPServer((replica.host, port), Handler)
    server.daemon_threads = True
    return server
