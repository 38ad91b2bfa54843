"""The bounds on one request: when its work ends, and what becomes of its memory."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from service.errors import BusyError, ClientLeftError, DeadlineError
from service.http.bounds import BodyMemory, Bounds

FAR = 60.0
REST = {"type": "http.request", "body": b"", "more_body": False}
LEFT = {"type": "http.disconnect"}


def receiving(*messages: dict[str, Any]) -> Callable[[], Any]:
    """ASGI's `receive` for a connection on which these messages come, and nothing after them."""
    coming = list(messages)

    async def receive() -> dict[str, Any]:
        if coming:
            return coming.pop(0)
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    return receive


async def work_for(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


async def bounded(receive: Any, seconds: float = FAR, limit_s: float = FAR) -> str:
    async with Bounds(BodyMemory(1), limit_s) as bounds:
        return await bounds.unless_client_leaves(receive, work_for(seconds))


@pytest.mark.parametrize("messages", [[LEFT], [REST, LEFT]], ids=["at once", "after the rest"])
def test_a_client_that_leaves_ends_the_work(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(ClientLeftError):
        asyncio.run(bounded(receiving(*messages)))


@pytest.mark.parametrize("messages", [[], [REST]], ids=["silence", "the rest of a body"])
def test_a_client_that_stays_gets_its_answer(messages: list[dict[str, Any]]) -> None:
    assert asyncio.run(bounded(receiving(*messages), seconds=0.01)) == "done"


def test_the_time_of_a_client_that_stays_runs_out() -> None:
    with pytest.raises(DeadlineError):
        asyncio.run(bounded(receiving(REST), limit_s=0.02))


def test_a_connection_that_breaks_otherwise_ends_no_work() -> None:
    async def broken() -> dict[str, Any]:
        raise OSError("no such connection")

    assert asyncio.run(bounded(broken, seconds=0.01)) == "done"


def test_memory_is_given_back_whatever_ends_the_request() -> None:
    async def hold(memory: BodyMemory, *counts: int) -> int:
        async with Bounds(memory, FAR) as bounds:
            for count in counts:
                bounds.grow(count)
            return memory.free

    memory = BodyMemory(10)
    assert asyncio.run(hold(memory, 3, 5)) == 2
    assert memory.free == 10
    with pytest.raises(BusyError):
        asyncio.run(hold(memory, 8, 3))
    assert memory.free == 10


def test_a_client_that_leaves_as_its_answer_is_ready_breaks_nothing() -> None:
    broken: list[dict[str, Any]] = []

    async def run() -> str:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: broken.append(context))
        leaving: asyncio.Future[dict[str, Any]] = loop.create_future()

        async def receive() -> dict[str, Any]:
            return await leaving

        async def work() -> str:
            await asyncio.sleep(0)
            # The message and the end of the work come in the same turn of the event loop.
            leaving.set_result(LEFT)
            await asyncio.sleep(0)
            return "done"

        async with Bounds(BodyMemory(1), FAR) as bounds:
            answer = await bounds.unless_client_leaves(receive, work())
        await asyncio.sleep(0.01)
        return answer

    assert asyncio.run(run()) == "done"
    assert broken == []
