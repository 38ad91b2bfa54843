"""Where Prometheus finds the metrics of each replica.

Ray's proxies pass a request to any one replica, so `/metrics` on their port would be another
server's at each scrape. Each replica answers it on a port of its own instead, and reports the
address to one small actor. `GET /metrics-targets` lists them for Prometheus's HTTP discovery.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import structlog
from fastapi import Request
from starlette.responses import JSONResponse

from service.http.app import Application
from service.process.listening.metrics_port import metrics_port

PATH: Final = "/metrics-targets"
ACTOR: Final = "metrics-targets"
NAMESPACE: Final = "yolox-serve"
REPORT_S: Final = 5.0
# Without a report for this long, a replica is gone.
FORGET_S: Final = 15.0
BACKLOG: Final = 16

log = structlog.get_logger(__name__)


class Targets:
    """Remembers which replicas have reported lately.

    Args:
        clock: Gives the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[float, dict[str, str]]] = {}

    def report(self, address: str, labels: dict[str, str]) -> None:
        """A replica lives, and answers `/metrics` at this address."""
        self._seen[address] = (self._clock(), labels)

    def listing(self) -> list[dict[str, Any]]:
        """The replicas that live, in the format of Prometheus's HTTP discovery."""
        oldest = self._clock() - FORGET_S
        self._seen = {
            address: (at, labels) for address, (at, labels) in self._seen.items() if at >= oldest
        }
        return [
            {"targets": [address], "labels": labels}
            for address, (_, labels) in sorted(self._seen.items())
        ]


def announced_metrics(app: Application) -> None:
    """Have an application in a replica answer `/metrics` on a port of its own, and report it."""
    app.beside = partial(_announced, app)
    app.add_api_route(PATH, _list_targets, include_in_schema=False)


async def _list_targets(request: Request) -> JSONResponse:
    del request
    return JSONResponse(await _registry().listing.remote())


@asynccontextmanager
async def _announced(app: Application) -> AsyncIterator[None]:
    import ray  # noqa: PLC0415 - an extra

    host = ray.util.get_node_ip_address()
    with socket.create_server((host, 0), backlog=BACKLOG) as listener:
        address = f"{host}:{listener.getsockname()[1]}"
        async with metrics_port(app, [listener]):
            reports = asyncio.create_task(_report(address, _labels()))
            yield
            reports.cancel()


async def _report(address: str, labels: dict[str, str]) -> None:
    while True:
        try:
            await _registry().report.remote(address, labels)
        except Exception as error:  # noqa: BLE001 - Ray's errors have no common class; the next may do
            log.warning("the address of the metrics was not reported", cause=str(error))
        await asyncio.sleep(REPORT_S)


def _labels() -> dict[str, str]:
    from ray import serve  # noqa: PLC0415 - an extra

    context = serve.get_replica_context()
    return {"application": context.app_name, "replica": context.replica_tag}


def _registry() -> Any:  # noqa: ANN401 - Ray's
    """The actor, which outlives every replica; made where there is none."""
    import ray  # noqa: PLC0415 - an extra

    return (
        ray.remote(Targets)
        .options(
            name=ACTOR, namespace=NAMESPACE, lifetime="detached", get_if_exists=True, num_cpus=0
        )
        .remote()
    )
