"""Clients that send slowly, not at all, or do not read; a neighbour must not notice.

Those that are to be hung up on must be, within the server's own bounds.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image

from benchmarks.qa.rig.neighbours import PHOTO, asking
from benchmarks.qa.rig.service import running
from benchmarks.qa.trial import Findings, Plan, Row
from service.http.connection.ending import HEAD_TIMEOUT_S, LINGER_S
from service.settings import Settings

DEADLINE_S: Final = Settings.model_fields["request_timeout_ms"].default / 1000
MARGIN_S: Final = 5.0
LONG_S: Final = DEADLINE_S + LINGER_S + MARGIN_S
SHORT_S: Final = 6.0
BYTE_EVERY_S: Final = 2.0
PIPELINED: Final = 10_000
PICTURES: Final = 2
HEAD: Final = b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
GET: Final = b"GET /model HTTP/1.1\r\nHost: x\r\n\r\n"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
# Returns once the server has hung up.
Client = Callable[[Streams], Awaitable[None]]


def slow_clients(plan: Plan) -> Row:
    """Send slowly, and read nothing."""
    findings, count = Findings(), plan.amount(long=40, short=8)
    lasts_s = SHORT_S if plan.is_short else LONG_S
    with running(plan.folder) as service:
        with asking(service.port) as heard:
            asyncio.run(_be_slow(service.port, count, lasts_s, findings))
        return findings.row("slow_clients", heard, service)


async def _be_slow(port: int, count: int, lasts_s: float, findings: Findings) -> None:
    """Be `count` clients of each kind at once, for a number of seconds."""
    ends = asyncio.get_running_loop().time() + lasts_s
    async with asyncio.TaskGroup() as tasks:
        for client, bound_s in CLIENTS.items():
            for _ in range(count):
                due_s = bound_s + MARGIN_S if bound_s is not None else None
                tasks.create_task(_one(port, client, due_s, ends, findings))


async def _one(
    port: int, client: Client, due_s: float | None, ends: float, findings: Findings
) -> None:
    """Be one client; a fault is noted if it is not hung up on in the time that it is due."""
    streams = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    findings.tried += 1
    began = time.monotonic()
    try:
        async with asyncio.timeout_at(ends):
            with suppress(ConnectionError):
                await client(streams)
    except TimeoutError:
        if due_s is not None and time.monotonic() - began > due_s:
            findings.failed.append(f"{client.__name__} was not hung up on in {due_s} s")
    streams[1].transport.abort()


async def silent(streams: Streams) -> None:
    """Say nothing."""
    await streams[0].read()


async def trickling_head(streams: Streams) -> None:
    """Begin a head that never ends."""
    streams[1].write(HEAD + b"X: ")
    await _trickle(streams)


async def trickling_body(streams: Streams) -> None:
    """Send half a byte a second of a body."""
    streams[1].write(HEAD + b"Content-Length: 1000000\r\n\r\n")
    await _trickle(streams)


async def trickling_chunks(streams: Streams) -> None:
    """The same in chunks."""
    streams[1].write(HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFF\r\n")
    await _trickle(streams)


async def leaving(streams: Streams) -> None:
    """Ask, and leave without the answer, over and over on other connections."""
    content = PHOTO.read_bytes()
    port = streams[1].get_extra_info("peername")[1]
    while True:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_detect(content))
        await asyncio.sleep(0.3)
        writer.transport.abort()


async def unread_pictures(streams: Streams) -> None:
    """Ask for large pictures, and read none."""
    streams[1].write(_detect(LARGE, accept=b"image/png") * PICTURES)
    await asyncio.sleep(LONG_S)


async def unread_pipeline(streams: Streams) -> None:
    """Ask for thousands of pages at once, and read none."""
    streams[1].write(GET * PIPELINED)
    await asyncio.sleep(LONG_S)


async def _trickle(streams: Streams) -> None:
    reader, writer = streams
    hung_up = asyncio.create_task(reader.read())
    while not hung_up.done():
        writer.write(b"x")
        await asyncio.wait((hung_up,), timeout=BYTE_EVERY_S)


def _detect(content: bytes, accept: bytes = b"application/json") -> bytes:
    return HEAD + b"Accept: %b\r\nContent-Length: %d\r\n\r\n%b" % (accept, len(content), content)


def _large_photo() -> bytes:
    """A JPEG whose pixels, as PNG, take some megabytes."""
    rng, buffer = np.random.default_rng(3), BytesIO()
    pixels = rng.integers(0, 256, (600, 1600, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


LARGE: Final = _large_photo()
# Each with the seconds after which the server must have hung up, if it must.
CLIENTS: Final[dict[Client, float | None]] = {
    silent: HEAD_TIMEOUT_S,
    trickling_head: HEAD_TIMEOUT_S,
    trickling_body: DEADLINE_S + LINGER_S,
    trickling_chunks: DEADLINE_S + LINGER_S,
    leaving: None,
    unread_pictures: None,
    unread_pipeline: None,
}
