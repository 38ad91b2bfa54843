"""Cross-origin requests (CORS): pages of which other origins may call the server."""

from functools import partial
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import OriginRefusedError
from service.lists import split_list

ANY: Final = "*"
METHODS: Final = ("GET", "HEAD", "POST")
EXPOSED: Final = ("X-Request-ID", "Server-Timing", "Retry-After")
# Set in the scope of a preflight request.
PREFLIGHT: Final = "preflight"


class Origins:
    """Answers preflight requests, and marks answers with what browsers want to see there.

    Args:
        allowed: The setting `cors_origins`.
    """

    def __init__(self, allowed: str) -> None:
        origins = split_list(allowed)
        # A path leads round FastAPI's middleware, so the exchange calls Starlette's part by part.
        self._cors = CORSMiddleware(
            _nowhere,
            allow_origins=origins,
            allow_methods=METHODS,
            # There are no cookies that a page could use: it has to bring a key of its own.
            allow_headers=(ANY,),
            expose_headers=EXPOSED,
        )
        self._anyone = Headers({"origin": ANY}) if ANY in origins else None

    def around(self, handle: ASGIApp, scope: Scope, send: Send) -> tuple[ASGIApp, Send]:
        """The application and the `send` for a request that another origin's page may have sent."""
        preflight = self._preflight(scope)
        if preflight is not None:
            scope[PREFLIGHT] = True
        return preflight or handle, self._marking(scope, send)

    def _preflight(self, scope: Scope) -> ASGIApp | None:
        """The answer to a browser that asks before a request; None if this is none."""
        if scope["method"] != "OPTIONS":
            return None
        headers = Headers(scope=scope)
        if not {"origin", "access-control-request-method"} <= set(headers):
            return None
        answer = self._cors.preflight_response(headers)
        return answer if answer.status_code < 400 else partial(_refuse, bytes(answer.body).decode())

    def _marking(self, scope: Scope, send: Send) -> Send:
        """A `send` that adds the headers of an answer to this request."""
        headers = self._anyone
        if headers is None:
            # Without an origin, caches still have to know that the answer depends on it.
            headers = Headers({"origin": Headers(scope=scope).get("origin", "")})
        return partial(self._cors.send, send=send, request_headers=headers)


async def _refuse(reason: str, scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive, send
    raise OriginRefusedError(f"{reason}; the server's setting cors_origins lists who may ask")


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive, send
    raise NotImplementedError
