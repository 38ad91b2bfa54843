"""Good clients that ask with a known photo all the while, and know the right boxes."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

PHOTO: Final = Path(__file__).parents[3] / "examples" / "parcel.jpg"
# Class and box of each object in the photo: x1, y1, x2, y2 in pixels.
OBJECTS: Final = {
    "qr_code": (513.1, 107.1, 634.0, 233.6),
    "pdf417": (170.5, 445.0, 446.7, 520.1),
    "linear": (193.9, 269.9, 574.0, 402.1),
}
MIN_IOU: Final = 0.8
# The default of the server's own deadline.
LATE_S: Final = 10.0
TIMEOUT_S: Final = 120.0
HEADERS: Final = {"Content-Type": "image/jpeg"}

Box = tuple[float, float, float, float]


@dataclass
class Heard:
    """The answers that good clients got.

    Attributes:
        asked: Number of requests.
        wrong: A sentence for each answer that was not 200, or had other boxes.
        late: Seconds that each answer took which came late.
        lost: A sentence for each request that got no answer.
        slowest_s: The longest time that an answer took.
    """

    asked: int = 0
    wrong: list[str] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def add(self, fault: str | None, seconds: float) -> None:
        """Count an answer."""
        self.asked += 1
        self.slowest_s = max(self.slowest_s, seconds)
        if fault is not None:
            self.wrong.append(fault)
        elif seconds > LATE_S:
            self.late.append(seconds)

    def add_lost(self, error: Exception) -> None:
        """Count a request without an answer."""
        self.asked += 1
        self.lost.append(repr(error))


@contextmanager
def asking(
    port: int, clients: int = 1, pause_s: float = 0.1, headers: dict[str, str] | None = None
) -> Iterator[Heard]:
    """Have clients ask until the block ends; every other one opens a connection for each request.

    Args:
        port: Where the server or the balancer listens.
        clients: Number of clients.
        pause_s: Time of each between an answer and the next request.
        headers: Headers to add to each request.
    """
    heard, over, lock = Heard(), threading.Event(), threading.Lock()

    def ask(stays: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        while not over.wait(pause_s):
            began = time.monotonic()
            try:
                fault = _ask(connection, headers or {})
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                with lock:
                    heard.add_lost(error)
            else:
                with lock:
                    heard.add(fault, time.monotonic() - began)
            if not stays:
                connection.close()
        connection.close()

    threads = [threading.Thread(target=ask, args=(n % 2 == 0,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield heard
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _ask(connection: http.client.HTTPConnection, headers: dict[str, str]) -> str | None:
    """Ask once; gives the fault of the answer, or None."""
    connection.request("POST", "/detect", PHOTO.read_bytes(), HEADERS | headers)
    response = connection.getresponse()
    answer = response.read()
    if response.status != http.HTTPStatus.OK:
        return f"{response.status}: {answer[:200]!r}"
    return fault_of(json.loads(answer)["results"][0]["detections"])


def fault_of(detections: list[Any]) -> str | None:
    """A sentence on what is wrong with the objects that were found in the photo, or None."""
    found = {each["class_name"]: _corners(each["box"]) for each in detections}
    if len(detections) != len(OBJECTS) or set(found) != set(OBJECTS):
        return f"other objects: {[each['class_name'] for each in detections]}"
    moved = [name for name, box in OBJECTS.items() if _iou(found[name], box) < MIN_IOU]
    return f"other boxes of {moved}" if moved else None


def _corners(box: dict[str, float]) -> Box:
    return box["x1"], box["y1"], box["x2"], box["y2"]


def _iou(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(width, 0.0) * max(height, 0.0)
    return common / (_area(one) + _area(other) - common)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
