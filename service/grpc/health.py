"""The health service of gRPC, which orchestrators ask."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio

from service.errors import ServiceError
from service.grpc.calls import SERVICE
from service.grpc.exchange import (
    Context,
    GrpcExchange,
    Handler,
    headers_of,
    parsed,
    refuse,
)
from service.http.exchange import request_id_of

NAME: Final = "grpc.health.v1.Health"
SERVICES: Final = ("", SERVICE)


class Health:
    """Tells whether the server takes new work.

    Args:
        exchange: Receives messages.
    """

    def __init__(self, exchange: GrpcExchange) -> None:
        self._exchange = exchange
        self._told: Any = aio.HealthServicer()
        self._watches: set[asyncio.Timeout] = set()

    def handlers(self) -> Mapping[str, Handler]:
        """A handler for each call, by its name."""
        serialize = health_pb2.HealthCheckResponse.SerializeToString
        return {
            "Check": grpc.stream_unary_rpc_method_handler(
                self.check, response_serializer=serialize
            ),
            "Watch": grpc.stream_stream_rpc_method_handler(
                self.watch, response_serializer=serialize
            ),
        }

    async def tell(self, *, ready: bool) -> None:
        """Tell those who ask, and those who watch."""
        kind = health_pb2.HealthCheckResponse
        for name in SERVICES:
            await self._told.set(name, kind.SERVING if ready else kind.NOT_SERVING)

    async def check(self, _: object, context: Context) -> Any:  # noqa: ANN401 - untyped package's
        """Whether a service is ready now."""
        return await self._told.Check(await self._read(context), context)

    async def watch(self, _: object, context: Context) -> None:
        """The same, and again whenever it changes."""
        asked = await self._read(context)
        with suppress(TimeoutError):
            async with asyncio.timeout(None) as clock:
                self._watches.add(clock)
                try:
                    await self._told.Watch(asked, context)
                finally:
                    self._watches.discard(clock)

    def end_watches(self) -> None:
        """End the calls of all who watch, for which a server that stops would wait."""
        for clock in self._watches:
            clock.reschedule(asyncio.get_running_loop().time())

    async def _read(self, context: Context) -> Any:  # noqa: ANN401 - likewise
        try:
            return parsed(health_pb2.HealthCheckRequest, await self._exchange.receive(context))
        except ServiceError as error:
            await refuse(context, error, request_id_of(headers_of(context)))
