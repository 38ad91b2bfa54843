"""A server whose engine sleeps: all of the HTTP layer and the queue, and no CPU for the model.

    python -m benchmarks.capacity.sleeping --host 127.0.0.2 --port 8000 --engine-ms 50

Many of them fit on a few CPUs, so that what is around them can be measured: balancer and network.
"""

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.overhead_servers import FreeEngine
from service.http.app import create_app
from service.observe.logs import configure_logs
from service.observe.metrics import Metrics
from service.process.listening.ports import bind_ports
from service.process.server import run
from service.settings import Settings

BOXES = 3


class SleepingEngine(FreeEngine):
    """Finds the same boxes in any image, after a fixed time.

    Args:
        seconds: Time of an image.
    """

    max_batch = 1

    def __init__(self, seconds: float) -> None:
        super().__init__(BOXES)
        self._seconds = seconds

    def infer(self, images: Sequence[NDArray[np.uint8]], span: int = 1) -> NDArray[np.floating]:
        """Give (N, A, 4 + 1 + C) raw rows for N images, while the CPU is free."""
        time.sleep(self._seconds)
        return super().infer(images, span)


def main(words: Sequence[str] | None = None) -> int:
    """Serve until a signal; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--engine-ms", type=float, default=50.0, help="time of an image")
    arguments = parser.parse_args(words)
    settings = Settings(host=arguments.host, port=arguments.port, engine_instances=1)
    configure_logs("json", "warning")
    engine = SleepingEngine(arguments.engine_ms / 1000)
    app = create_app(settings, engine, Metrics())
    with bind_ports(settings) as ports:
        ports.listen()
        return run(app, settings, ports)


if __name__ == "__main__":
    sys.exit(main())
