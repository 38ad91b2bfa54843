"""The servers of the overhead benchmark: ours with an engine that costs nothing, and the floor."""

import multiprocessing
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import uvicorn
from numpy.typing import NDArray
from starlette.types import ASGIApp, Receive, Scope, Send

from service.core.contract import InputSpec, ModelContract
from service.engine.base import Precision
from service.http.app import create_app
from service.http.connection.crowd import Crowd
from service.http.connection.door import OpenDoor
from service.http.exchange import Exchange
from service.models.shared_state import StateFile
from service.observe.logs import configure_logs
from service.observe.metrics import Metrics
from service.observe.process_group import FOLDER_VARIABLE, write_metrics_as
from service.process.listening.ports import Ports
from service.process.listening.uvicorn_config import uvicorn_config
from service.process.server import SharedPort, run
from service.queue.cpu_sharing import LOADS_FILE, WorkerLoads
from service.settings import Settings

SIDE = 64
BOXES_A_ROW, MOST_BOXES = 4, 16
LOGIT_SURE, LOGIT_NEVER = 8.0, -12.0
START_TIMEOUT_S = 60
CONTRACT = ModelContract(
    name="free",
    version="1",
    input=InputSpec(name="images", height=SIDE, width=SIDE, dynamic_size=True),
    class_names=tuple(f"class {number}" for number in range(80)),
)


class FreeEngine:
    """Finds the same boxes in any image, at no cost.

    Args:
        boxes: Number of boxes, at most `MOST_BOXES`; they do not overlap, and each has another
            class.
    """

    provider = wanted_provider = "FreeExecutionProvider"
    on_cpu = False
    precision: Precision = "f32"
    threads = 1
    contract = CONTRACT
    max_batch = 16
    spans: Sequence[int] = (1,)

    def __init__(self, boxes: int) -> None:
        shape = (self.max_batch, CONTRACT.num_cells(SIDE, SIDE), CONTRACT.output_channels)
        self._rows = np.full(shape, LOGIT_NEVER, np.float32)
        for box in range(boxes):
            down, across = divmod(box, BOXES_A_ROW)
            # The first level has a cell every 8 pixels; boxes fill every second one.
            row = self._rows[:, 2 * down * (SIDE // 8) + 2 * across]
            row[:, :4] = (0.5, 0.5, 0, 0)
            row[:, 4] = row[:, 5 + box] = LOGIT_SURE

    def infer(self, images: Sequence[NDArray[np.uint8]], span: int = 1) -> NDArray[np.floating]:
        """Give (N, A, 4 + 1 + C) raw rows for N (`SIDE`, `SIDE`, 3) images."""
        del span
        return self._rows[: len(images)]


@dataclass(frozen=True)
class Answer:
    """The answer to one request."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class Service:
    """The server under test; a call runs it in this process."""

    boxes: int
    log_level: str
    refuses: bool = False

    def __call__(self, listener: socket.socket, place: int | None, started: Event) -> None:
        """Serve until a signal."""
        # The queue holds every connection, because refusals are not measured here.
        settings = Settings(max_queue_images=4096)
        configure_logs("json", self.log_level)
        if place is not None:
            write_metrics_as(place)
        folder = Path(os.environ[FOLDER_VARIABLE])
        metrics = Metrics(None if place is None else folder)
        loads = WorkerLoads.attach(folder / LOADS_FILE, place or 0)
        app = create_app(settings, FreeEngine(self.boxes), metrics, loads)

        shared = SharedPort([listener], loads, StateFile(folder), sign=lambda: None)

        def begin() -> None:
            if self.refuses:
                app.running.pipeline.refuse_new()
            started.set()

        sys.exit(run(app, settings, Ports([listener]), shared, begin))


@dataclass(frozen=True)
class Floor:
    """uvicorn alone, which always gives the same answer; a call runs it in this process."""

    answer: Answer

    def __call__(self, listener: socket.socket, place: int | None, started: Event) -> None:
        """Serve until a signal."""
        del place
        metrics = Metrics()
        door = OpenDoor(Exchange(metrics), Crowd(metrics, max_connections=4096))
        config = uvicorn_config(answering(self.answer), Settings(), door)
        _AnnouncingServer(config, started).run([listener])


class _AnnouncingServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Event) -> None:
        super().__init__(config)
        self._listens = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listens.set()


def answering(answer: Answer) -> ASGIApp:
    """An application that reads the body and always gives the same answer."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        chunks = []
        while (message := await receive())["type"] == "http.request":
            chunks.append(message["body"])
            if not message.get("more_body"):
                break
        b"".join(chunks)
        await send({"type": "http.response.start", "status": 200, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})

    return app


@dataclass(frozen=True)
class Processes:
    """Processes that serve on one port."""

    port: int
    ids: tuple[int, ...]


@contextmanager
def serving(what: Service | Floor, processes: int) -> Iterator[Processes]:
    """Run a number of processes on a free port; several processes share their metrics."""
    spawn = multiprocessing.get_context("spawn")
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        tempfile.TemporaryDirectory() as folder,
    ):
        WorkerLoads.create(Path(folder) / LOADS_FILE, processes)
        log = Path(folder) / "log"
        events = [spawn.Event() for _ in range(processes)]
        running = [
            spawn.Process(
                target=_child, args=(what, listener, place if processes > 1 else None, event, log)
            )
            for place, event in enumerate(events)
        ]
        try:
            for process, event in zip(running, events, strict=True):
                process.start()
                if not event.wait(START_TIMEOUT_S):
                    raise SystemExit(f"error: the server did not start: {log.read_text()}")
            port: int = listener.getsockname()[1]
            yield Processes(port, tuple(process.pid or 0 for process in running))
        finally:
            for process in running:
                process.terminate()
                process.join()


def _child(
    what: Service | Floor,
    listener: socket.socket,
    place: int | None,
    started: Event,
    log: Path,
) -> None:
    with log.open("a", encoding="utf-8") as stream:
        sys.stderr = stream
        os.environ[FOLDER_VARIABLE] = str(log.parent)
        what(listener, place, started)
