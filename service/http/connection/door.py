"""The questions that a connection asks an application before it hands a request on."""

from typing import Protocol

from starlette.types import ASGIApp, Scope

from service.errors import ServiceError
from service.http.connection.crowd import Crowd
from service.http.exchange import Exchange


class Door(Protocol):
    """Gives applications that answer in the place of the whole one, and wait for nothing.

    Attributes:
        crowd: The bounds that all connections share.
    """

    crowd: Crowd

    def refusing(self, scope: Scope) -> ASGIApp | None:
        """An application that refuses this request, if no body could change that; else None."""

    def rejecting(self, error: ServiceError) -> ASGIApp:
        """An application that answers bytes which are no HTTP request."""


class OpenDoor:
    """The door of an application that refuses nothing unheard.

    Args:
        exchange: The exchange that answers.
        crowd: The bounds that all connections share.
    """

    def __init__(self, exchange: Exchange, crowd: Crowd) -> None:
        self._exchange = exchange
        self.crowd = crowd

    def refusing(self, scope: Scope) -> ASGIApp | None:
        """None, whatever is asked."""
        del scope
        return None

    def rejecting(self, error: ServiceError) -> ASGIApp:
        """A problem document, counted like every answer."""
        return self._exchange.refusing(error)
