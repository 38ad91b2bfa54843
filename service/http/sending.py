"""Sending long answers: in slices, as fast as the client reads, from a bounded memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fastapi import Response
from starlette.types import Receive, Scope, Send

from service.errors import UnreadAnswersError

# Shorter answers are written whole, and wait in the connection's own buffer.
SLICE_BYTES: Final = 64 * 1024


class AnswerMemory:
    """A bound on the bytes of long answers that wait for their clients to read them.

    Args:
        max_bytes: The bound. A single answer may exceed it.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    async def send(self, response: Response, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a response that is whole in memory.

        Raises:
            UnreadAnswersError: It does not fit beside the others; nothing has been sent.
        """
        body = memoryview(response.body)
        if len(body) <= SLICE_BYTES:
            await response(scope, receive, send)
            return
        start = {"status": response.status_code, "headers": response.raw_headers}
        with self._holding(len(body)):
            await send({"type": "http.response.start", **start})
            for at in range(0, len(body), SLICE_BYTES):
                more, part = at + SLICE_BYTES < len(body), bytes(body[at : at + SLICE_BYTES])
                await send({"type": "http.response.body", "body": part, "more_body": more})

    @contextmanager
    def _holding(self, count: int) -> Iterator[None]:
        if self._held and self._held + count > self._max_bytes:
            raise UnreadAnswersError("clients have yet to read other long answers", retry_after_s=1)
        self._held += count
        try:
            yield
        finally:
            self._held -= count
