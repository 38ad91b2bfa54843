"""Times at which a server looks at its model files: start, polling, SIGHUP, others' changes."""

import asyncio
from typing import Final

import structlog

from service.models.changing import Models

# Between two looks at what the other processes of the server have changed.
FOLLOW_S: Final = 1.0

log = structlog.get_logger(__name__)


class Following:
    """Has the models follow their files while the server runs.

    Args:
        models: The models.
        poll_s: Seconds between two looks at the files; 0 for none.
        is_shared: Whether other processes of the server may change models.
    """

    def __init__(self, models: Models, poll_s: float, *, is_shared: bool) -> None:
        self._models = models
        self._poll_s = poll_s
        self._is_shared = is_shared
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Load what is to be loaded beside the first model, and follow the files from now on."""
        self._keep(asyncio.create_task(self._run()))

    async def stop(self) -> None:
        """Follow the files no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def refresh_soon(self) -> None:
        """Look at the files now, without waiting for that; needs a running event loop."""
        self._keep(asyncio.create_task(self._refreshed()))

    async def _refreshed(self) -> None:
        await self._models.refresh()
        log.info("the models were looked at again", models=len(self._models.found))

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("the models cannot be followed", exc_info=task.exception())

    async def _run(self) -> None:
        await self._models.refresh(seen_only=True)
        if self._poll_s > 0:
            self._keep(asyncio.create_task(self._poll()))
        if self._is_shared:
            self._keep(asyncio.create_task(self._follow()))

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            await self._models.refresh(settled_only=True)

    async def _follow(self) -> None:
        """Change to what another process of the server has changed to."""
        while True:
            await asyncio.sleep(FOLLOW_S)
            if self._models.is_behind():
                await self._models.refresh()
