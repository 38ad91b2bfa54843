"""What a connection asks of an application before it hands a request on."""

from typing import Protocol

from starlette.types import ASGIApp, Scope

from service.errors import ServiceError
from service.http.exchange import Exchange


class Door(Protocol):
    """Gives applications that answer in the place of the whole one, and wait for nothing."""

    def refusing(self, scope: Scope) -> ASGIApp | None:
        """What answers a request that would be refused whatever its body holds, or None."""

    def rejecting(self, error: ServiceError) -> ASGIApp:
        """What answers bytes that are no HTTP request."""


class OpenDoor:
    """The door of an application that refuses nothing unheard.

    Args:
        exchange: What answers.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def refusing(self, scope: Scope) -> ASGIApp | None:
        """None, whatever is asked."""
        del scope
        return None

    def rejecting(self, error: ServiceError) -> ASGIApp:
        """A problem document, counted like every answer."""
        return self._exchange.refusing(error)
