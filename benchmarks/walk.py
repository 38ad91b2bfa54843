"""The walk of one request through the server: the files of `service/` that it enters, in order.

    python benchmarks/walk.py [--functions]

One JPEG is sent as a raw body to `POST /detect` of the real ASGI application, with the embedded
model on the CPU. A profiler on the event loop and on every worker thread notes each function of
`service/` that is called, helpers, properties and comprehensions included; a coroutine counts when
it is first entered, not each time it resumes. The event loop's calls come first, then those of each
worker thread, so that the walk is the same in every run.

An earlier request, which is not recorded, fills the caches.
"""

import argparse
import asyncio
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any, Final

from starlette.types import ASGIApp, Message

import service
from service.http.app import create_app
from service.observe.logs import configure_logs
from service.settings import Settings

HOME: Final = Path(service.__file__).parent
TURNS: Final = 100
PHOTO: Final = HOME.parent / "examples" / "parcel.jpg"


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the server that was called.

    Attributes:
        file: Its file, relative to `service/`.
        function: Its qualified name.
    """

    file: str
    function: str


class Recorder:
    """A profile function for `sys.setprofile`; notes calls while `on` is set."""

    def __init__(self) -> None:
        self.on = False
        self._calls: dict[int, list[Call]] = {threading.get_ident(): []}
        # Holding the frames keeps Python from reusing their ids for new frames.
        self._entered: dict[int, FrameType] = {}

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        """Note a call of a function whose code lies in `service/`."""
        path = Path(frame.f_code.co_filename)
        if event != "call" or HOME not in path.parents or id(frame) in self._entered:
            return
        # Note frames before the recording, too: a coroutine may resume while it is on.
        self._entered[id(frame)] = frame
        if self.on:
            call = Call(path.relative_to(HOME).as_posix(), frame.f_code.co_qualname)
            self._calls.setdefault(threading.get_ident(), []).append(call)

    def threads(self) -> list[list[Call]]:
        """The calls of each thread, those of this one first."""
        return list(self._calls.values())


def record(photo: bytes) -> list[list[Call]]:
    """Answer one request, and give the calls of every thread, those of the event loop first.

    Args:
        photo: The bytes of a JPEG.
    """
    recorder = Recorder()
    # Threads take their profiler when they start, and they start with the application.
    threading.setprofile(recorder)
    sys.setprofile(recorder)
    try:
        asyncio.run(_answer(photo, recorder))
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return recorder.threads()


async def _answer(photo: bytes, recorder: Recorder) -> None:
    app = create_app(Settings(device="cpu"))
    async with app.router.lifespan_context(app):
        await ask(app, photo)
        # Let the first request's remaining callbacks run before the recording.
        for _ in range(TURNS):
            await asyncio.sleep(0)
        recorder.on = True
        await ask(app, photo)
        recorder.on = False


async def ask(app: ASGIApp, photo: bytes) -> None:
    """Send one raw JPEG.

    Raises:
        RuntimeError: The answer is not 200.
    """
    sent = [{"type": "http.request", "body": photo, "more_body": False}]
    statuses = []

    async def receive() -> Message:
        if sent:
            return sent.pop()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def send(message: Message) -> None:
        statuses.append(message.get("status", 0))

    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/detect",
        "raw_path": b"/detect",
        "query_string": b"",
        "headers": [(b"content-type", b"image/jpeg"), (b"host", b"localhost")],
        "state": {},
    }
    await app(scope, receive, send)
    if statuses[0] != 200:
        raise RuntimeError(f"the server answered {statuses[0]}")


def stops(calls: Iterable[Call]) -> list[tuple[str, list[str]]]:
    """The files that calls enter, in order, with the functions called in each."""
    groups = groupby(calls, key=lambda call: call.file)
    return [(file, [call.function for call in group]) for file, group in groups]


def files(threads: Sequence[Sequence[Call]]) -> set[str]:
    """Every file that was entered."""
    return {call.file for calls in threads for call in calls}


def changes(threads: Sequence[Sequence[Call]]) -> int:
    """How often the walk goes from one file into another."""
    walk = stops(call for calls in threads for call in calls)
    return len(walk) - 1


def main() -> None:
    """Record a request, and print its walk."""
    configure_logs("console", "error")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--functions", action="store_true", help="name every function")
    arguments = parser.parse_args()
    threads = record(PHOTO.read_bytes())
    for number, calls in enumerate(threads):
        print("event loop" if number == 0 else f"worker thread {number}")
        for file, functions in stops(calls):
            print(f"  {file:28}{', '.join(functions) if arguments.functions else len(functions)}")
    print(f"{len(files(threads))} files, {changes(threads)} changes of file")


if __name__ == "__main__":
    main()
