"""The application of a port of its own that answers `/metrics` and nothing else."""

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from service.http.exchange import Exchange
from service.http.pages import Pages
from service.http.running import Running


class MetricsApplication(FastAPI):
    """Answers `GET /metrics`; its requests are counted and logged like all others.

    Args:
        running: The parts of the server that the metrics describe.
        exchange: The exchange that answers.
    """

    def __init__(self, running: Running, exchange: Exchange) -> None:
        super().__init__(
            openapi_url=None,
            redirect_slashes=False,
            telemetry={"tracing": False, "metrics": False, "logs": False},
            routes=[APIRoute("/metrics", Pages(running).metrics, response_class=Response)],
            exception_handlers={HTTPException: _raise, RequestValidationError: _raise},
        )
        self.add_middleware(exchange.around)


async def _raise(_: Request, error: Exception) -> Response:
    raise error
