"""The walk of a request: what its recorder notes, and how long the server's walk may be."""

import asyncio
import sys
from typing import Any

from service.http.exchange import Exchange
from service.observe.metrics import Metrics
from support.scripts import benchmark

walk = benchmark("walk")

# A shorter walk lowers these. Each file is a subject of its own: exchange, route, bounds,
# answer; the queue and its capacity; decoding, fitting, the network, and the steps behind it.
MAX_FILES, MAX_CHANGES = 16, 30


def calls(*files: str) -> list[Any]:
    return [walk.Call(file, "function") for file in files]


def test_a_request_goes_through_no_more_files_than_it_did() -> None:
    threads = walk.record(walk.PHOTO.read_bytes())
    assert len(threads) == 2, "the event loop, and the one thread that the image stays on"
    assert len(walk.files(threads)) <= MAX_FILES
    assert walk.changes(threads) <= MAX_CHANGES
    assert threads[0][0].file == threads[0][-1].file == "http/exchange.py"


def test_calls_in_a_row_into_one_file_are_one_stop() -> None:
    stops = walk.stops(calls("a.py", "a.py", "b.py", "a.py"))
    assert [(file, len(functions)) for file, functions in stops] == [
        ("a.py", 2), ("b.py", 1), ("a.py", 1)
    ]  # fmt: skip


def test_a_change_of_thread_is_a_change_of_file_if_the_file_is_another() -> None:
    assert walk.changes([calls("a.py", "b.py"), calls("b.py", "c.py")]) == 2
    assert walk.changes([calls("a.py", "b.py"), calls("c.py")]) == 2
    assert walk.files([calls("a.py", "b.py"), calls("b.py")]) == {"a.py", "b.py"}


def test_a_coroutine_counts_when_it_is_entered_and_not_when_it_goes_on() -> None:
    async def pausing(_scope: Any, _receive: Any, _send: Any) -> None:
        await asyncio.sleep(0)

    layer = Exchange(Metrics()).around(pausing)
    recorder = walk.Recorder()
    recorder.on = True
    sys.setprofile(recorder)
    try:
        asyncio.run(layer({"type": "lifespan"}, None, None))
    finally:
        sys.setprofile(None)
    (seen,) = recorder.threads()
    assert [call.file for call in seen] == ["http/exchange.py"]
