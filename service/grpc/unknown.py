"""Calls that the server does not have: they are refused in words, and logged as all others."""

from typing import Final

import grpc
from google.protobuf.message import Message

from service.errors import ServiceError
from service.grpc.exchange import Context, GrpcExchange, Handler, Receive
from service.http.access.note import Note

# One name for all, so that clients cannot make series without end.
ENDPOINT: Final = "unmatched"


class UnknownCallError(ServiceError):
    """There is no such call."""

    status = 501
    title = "Call not implemented"
    slug = "unknown-call"


class UnknownCalls(grpc.GenericRpcHandler):
    """Answers the calls that no other handler has taken.

    Args:
        exchange: The common part of all calls.
        services: The names of the calls that there are, by the name of their service.
    """

    def __init__(self, exchange: GrpcExchange, services: dict[str, list[str]]) -> None:
        self._handler = exchange.handler(ENDPOINT, self._refuse, None)
        self._there = "; ".join(f"{name} has {', '.join(services[name])}" for name in services)

    def service(self, _: grpc.HandlerCallDetails) -> Handler:
        """The handler of any call."""
        return self._handler

    async def _refuse(self, _: Receive, __: Context, ___: Note) -> Message:
        raise UnknownCallError(f"this server has no such call; {self._there}")
