"""Long work on the event loop, in pieces."""

import asyncio
import time
from typing import Final

TURN_S: Final = 0.001


class Turns:
    """Lets other requests have their turn while the body of one is worked on."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    async def offer(self) -> None:
        """Let the others go first, if this request has been at it for `TURN_S`."""
        if time.monotonic() - self._began > TURN_S:
            await asyncio.sleep(0)
            self._began = time.monotonic()
