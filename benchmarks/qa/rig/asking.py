"""Requests of any form to a server, several at once, and the judgement of the answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx2 as httpx

from service.errors import ServiceError

AT_ONCE: Final = 8
TIMEOUT_S: Final = 120.0
PREFIX: Final = "urn:problem-type:yolox-serve:"


@dataclass(frozen=True)
class Ask:
    """A request to `/detect`.

    Attributes:
        content: The body.
        headers: Its headers.
        query: The query of the address, encoded.
        status: The status that the answer must have; by default any that is documented.
    """

    content: bytes
    headers: dict[str, str]
    query: str = ""
    status: int | None = None


@dataclass(frozen=True)
class Told:
    """An answer.

    Attributes:
        status: Its status.
        fault: A sentence on the promise that it breaks, or None.
    """

    status: int
    fault: str | None


@asynccontextmanager
async def client(port: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a few connections to a server on this machine."""
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits) as opened:
        yield opened


async def ask(server: httpx.AsyncClient, request: Ask) -> Told:
    """Ask once.

    Raises:
        httpx.TransportError: There was no answer.
    """
    answer = await server.post(
        f"/detect?{request.query}", content=request.content, headers=request.headers
    )
    fault = fault_of(answer.status_code, answer.headers, answer.content)
    if request.status not in (None, answer.status_code):
        fault = f"{answer.status_code} instead of {request.status}: {answer.content[:200]!r}"
    return Told(answer.status_code, fault)


async def ask_all(
    port: int, requests: Iterable[Ask], at_once: int = AT_ONCE
) -> list[tuple[Ask, Told | None]]:
    """Ask everything; gives each request with its answer, or with None if there was none."""
    heard = list[tuple[Ask, Told | None]]()
    left = iter(requests)

    async def go_on(server: httpx.AsyncClient) -> None:
        for request in left:
            try:
                heard.append((request, await ask(server, request)))
            except httpx.TransportError:
                heard.append((request, None))

    async with client(port) as server, asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(go_on(server))
    return heard


def fault_of(status: int, headers: Any, content: bytes) -> str | None:  # noqa: ANN401 - a mapping
    """A sentence on what is wrong with an answer, whatever was asked; None if it may be so."""
    if status == 500 or (status, None) not in DOCUMENTED:
        return f"status {status}: {content[:200]!r}"
    kind = headers.get("content-type", "")
    if status == 200:
        is_right = kind.startswith("image/") or (kind == "application/json" and _is_json(content))
        return None if is_right else f"200 with {kind}: {content[:100]!r}"
    if kind != "application/problem+json" or not _is_json(content):
        return f"{status} is no problem document: {content[:100]!r}"
    return _fault_of_problem(status, headers, json.loads(content))


def _fault_of_problem(status: int, headers: Any, document: Any) -> str | None:  # noqa: ANN401
    slug = str(document.get("type")).removeprefix(PREFIX)
    if document.get("status") != status or (status, slug) not in DOCUMENTED:
        return f"{status} says {document}"
    if document.get("request_id") != headers.get("x-request-id"):
        return f"{status} has another request_id than its header"
    return None


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


def _documented() -> set[tuple[int, str | None]]:
    """Statuses, alone and with the last part of a problem's type."""
    found: set[tuple[int, str | None]] = {(200, None)}
    kinds = [ServiceError]
    while kinds:
        kind = kinds.pop()
        found |= {(kind.status, None), (kind.status, kind.slug)}
        kinds += kind.__subclasses__()
    return found


DOCUMENTED: Final = _documented()
