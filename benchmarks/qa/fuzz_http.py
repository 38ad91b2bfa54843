"""Bytes that are almost HTTP: damaged heads, lengths, chunks and pipelines."""

import asyncio
import random
import re
from contextlib import suppress
from typing import Final

from benchmarks.qa.images import originals
from benchmarks.qa.rig.asking import fault_of
from benchmarks.qa.rig.neighbours import asking
from benchmarks.qa.rig.service import running
from benchmarks.qa.trial import Findings, Plan, Row

AT_ONCE: Final = 16
# A server that has said nothing for this long waits for more.
QUIET_S: Final = 0.2
# Asked last, so that the server closes if it has understood all that came before.
LAST: Final = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
METHODS: Final = (
    b"POST",
    b"POST",
    b"GET",
    b"HEAD",
    b"PUT",
    b"OPTIONS",
    b"CONNECT",
    b"PRI",
    b"G\0T",
)
TARGETS: Final = (
    *(b"/detect", b"/detect", b"/detect?confidence=0", b"/model", b"/metrics", b"/health/ready"),
    *(b"*", b"//detect", b"/%00", b"/../detect", b"http://x/detect", b"/\xff\xfe", b"/docs"),
    *(b"/" + b"a" * 70_000, b"", b"/detect?" + b"a=b&" * 3000, b"/detect#x"),
)
VERSIONS: Final = (b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b"")
FIELDS: Final = (
    *(b"Host: x", b"Host: x", b"Host:", b"Connection: close", b"Connection: keep-alive"),
    *(b"Connection: Upgrade", b"Upgrade: h2c", b"Upgrade: websocket", b"Expect: 100-continue"),
    *(b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 1e9"),
    *(b"Content-Length: 99999999999999999999", b"Content-Length: 33554433"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: x"),
    *(
        b"Content-Type: image/jpeg",
        b"Content-Type: \xff",
        b"Accept: image/png",
        b"Accept: " + b"*" * 99,
    ),
    *(b"X-Request-ID: a b", b"X-Request-ID: " + b"r" * 500, b"X-API-Key: \xe9", b": no name"),
    *(b"No colon", b" folded", b"A\0: b", b"B: \x01", b"C: " + b"c" * 70_000, b"Trailer: x"),
)
BODIES: Final = (
    *(b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"5;x=y\r\nhello\r\n0\r\nX: y\r\n\r\n"),
    *(
        b"FFFFFFFFFFFFFFFFF\r\n",
        b"-5\r\nhello\r\n",
        b"5\nhello\n0\n\n",
        b"0\r\n" + b"T: t\r\n" * 9000,
    ),
)


def fuzz_http(plan: Plan) -> Row:
    """Send what is almost HTTP."""
    rng, count = plan.rng("http"), plan.amount(long=4000, short=300)
    findings = Findings()
    with running(plan.folder) as service:
        with asking(service.port) as heard:
            sent = [_message(rng) for _ in range(count)]
            asyncio.run(_send_all(service.port, sent, plan, findings))
        return findings.row("fuzz_http", heard, service)


def _message(rng: random.Random) -> bytes:
    parts = [_request(rng) for _ in range(rng.choice((1, 1, 1, 2, 5)))]
    return b"".join(parts) + LAST


def _request(rng: random.Random) -> bytes:
    line = b" ".join((rng.choice(METHODS), rng.choice(TARGETS), rng.choice(VERSIONS)))
    if rng.random() < 0.5:
        fields, body = [rng.choice(FIELDS) for _ in range(rng.randint(0, 6))], rng.choice(BODIES)
    else:
        body = rng.choice(originals())
        fields = [b"Host: x", b"Content-Type: image/jpeg", b"Content-Length: %d" % len(body)]
        line = b"POST /detect HTTP/1.1"
    head = b"\r\n".join((line, *fields)) + b"\r\n\r\n"
    return _damaged(head, rng) + body if rng.random() < 0.5 else head + body


def _damaged(head: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(head))
    piece = rng.choice((b"", b"\r", b"\n", b"\0", b"\r\n\r\n", rng.randbytes(2), head[at : at + 9]))
    return head[:at] + piece + head[at + rng.randrange(3) :]


async def _send_all(port: int, sent: list[bytes], plan: Plan, findings: Findings) -> None:
    left = iter(sent)

    async def go_on() -> None:
        for message in left:
            answer = await _exchange(port, message)
            _note(findings, plan, message, answer)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(go_on())


async def _exchange(port: int, message: bytes) -> bytes:
    """All that the server says until it hangs up, or is quiet for long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = bytearray()
    # A server may hang up before it has read all.
    with suppress(ConnectionError, TimeoutError):
        writer.write(message)
        while data := await asyncio.wait_for(reader.read(65536), QUIET_S + bool(not answer)):
            answer += data
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return bytes(answer)


def _note(findings: Findings, plan: Plan, message: bytes, answer: bytes) -> None:
    findings.tried += 1
    found = [*STATUS.finditer(answer)]
    for match in found:
        findings.statuses[int(match[1])] += 1
    bad = [match[1].decode() for match in found if int(match[1]) == 500]
    # A first answer that has no body, and answers after the first, are not read whole.
    is_read = not message.startswith(b"HEAD")
    fault = f"status {bad[0]}" if bad else _fault_of_first(answer) if is_read else None
    if fault is not None:
        kept = plan.folder / f"fuzz_http-{findings.tried}.bytes"
        kept.write_bytes(message)
        findings.failed.append(f"{fault}: {kept}")


def _fault_of_first(answer: bytes) -> str | None:
    """A sentence on what is wrong with the first answer, if it is the refusal of a request."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    if not answer or not STATUS.match(head):
        return f"no HTTP: {answer[:100]!r}" if answer else None
    status, length = int(head[9:12]), LENGTH.search(head + b"\r\n")
    if status < 400 or length is None or len(rest) < int(length[1]):
        return None
    fields = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    headers = {name.decode().lower(): value.strip().decode() for name, _, value in fields}
    return fault_of(status, headers, rest[: int(length[1])])
