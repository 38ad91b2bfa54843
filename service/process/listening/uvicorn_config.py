"""How uvicorn is set up."""

import asyncio
import math
from functools import partial
from typing import Final, cast

import uvicorn
from starlette.types import ASGIApp

from service.http.connection.door import Door
from service.http.connection.early_refusal import RefusingConnection
from service.process.listening.ports import BACKLOG
from service.settings import Settings

# Load balancers usually keep idle connections for a minute. A server that closes them sooner
# sometimes does so just as the next request is on its way.
KEEP_ALIVE_S: Final = 75


def uvicorn_config(app: ASGIApp, settings: Settings, door: Door) -> uvicorn.Config:
    """The settings of uvicorn.

    Args:
        app: The application.
        settings: The server's settings.
        door: Refuses requests before the application sees them.
    """
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        # The access log alone uses the client's address, and has a setting of its own for proxies.
        proxy_headers=False,
        server_header=False,
        # uvicorn calls it with its own arguments, once for each connection.
        http=cast("type[asyncio.Protocol]", partial(RefusingConnection, door)),
        ws="none",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_s),
    )
