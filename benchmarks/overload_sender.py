"""Sends one photo over many connections, closed loop or evenly paced; run by overload.py.

    python benchmarks/overload_sender.py HOST PORT PHOTO SECONDS CONNECTIONS GAP

Each connection sends its next request as soon as it has its answer, but not before GAP seconds have
passed since the last one was due; the connections' turns are spread evenly over GAP. Prints a line
for each answer: when its request was due, seconds until the whole answer had come, and its status.
"""

import asyncio
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import uvloop

SLACK_S = 1.0


@dataclass
class Load:
    """The data that all connections share.

    Attributes:
        request: The bytes of one request.
        gap_s: Minimum time from one request of a connection to the next, in seconds.
        seconds: For how long requests are sent.
        end: Loop time after which nothing more is sent.
        rows: For each answer, the loop time when its request was due, seconds taken, and status.
    """

    request: bytes
    gap_s: float
    seconds: float
    end: float = 0.0
    rows: list[tuple[float, float, int]] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """One client that keeps its connection.

    Args:
        load: The request that it sends, and how often.
        first: Loop time of its first request.
    """

    def __init__(self, load: Load, first: float) -> None:
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._due = first
        self._answer = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first turn."""
        # uvloop's transports do not derive from asyncio's classes.
        self._transport = cast("asyncio.WriteTransport", transport)
        self._loop.call_at(self._due, self._send)

    def data_received(self, data: bytes) -> None:
        """Read the answer; when it is whole, wait for the next turn."""
        self._answer += data
        head, separator, body = self._answer.partition(b"\r\n\r\n")
        if not separator or len(body) < length_of(bytes(head)):
            return
        now = self._loop.time()
        self._load.rows.append((self._due, now - self._due, int(head[9:12])))
        self._answer.clear()
        # A missed turn is skipped, because a connection sends only one request at a time.
        self._due = max(self._due + self._load.gap_s, now)
        self._loop.call_at(self._due, self._send)

    def _send(self) -> None:
        if self._transport is not None and self._loop.time() < self._load.end:
            self._transport.write(self._load.request)


def length_of(head: bytes) -> int:
    """Bytes of the body that a response's head announces."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


def main() -> None:
    """Send, and print the answers."""
    host, port, photo, *numbers = sys.argv[1:]
    seconds, connections, gap_s = map(float, numbers)
    content = Path(photo).read_bytes()
    head = f"POST /detect HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/jpeg\r\n"
    request = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
    load = Load(request, gap_s, seconds)
    started = uvloop.run(send(load, (host, int(port)), int(connections)))
    print("offset,response-time,status-code")
    for due, taken, status in load.rows:
        print(f"{due - started:.4f},{taken:.4f},{status}")


async def send(load: Load, address: tuple[str, int], connections: int) -> float:
    """Send for the duration of the load; gives the loop time at the start."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    load.end = started + load.seconds
    for turn in range(connections):
        first = started + turn / connections * load.gap_s
        await loop.create_connection(partial(Connection, load, first), *address)
    await asyncio.sleep(load.end + SLACK_S - loop.time())
    return started


if __name__ == "__main__":
    main()
