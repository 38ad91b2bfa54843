"""Sending the head of an answer together with its body."""

import asyncio
from collections.abc import Callable
from typing import Final

INTERIM_ANSWER: Final = b"HTTP/1.1 100 "


class WholeAnswer:
    """A connection's transport that sends an answer's head with its body, not before it.

    One packet costs either side half of what two do.

    Args:
        transport: Where to send.
        hang_up: Called when nothing more is to be sent.

    Attributes:
        asked_for_body: Whether a client that waited for it was told to send its body.
        bytes_written: How many bytes were sent.
    """

    def __init__(self, transport: asyncio.Transport, hang_up: Callable[[], None]) -> None:
        self._transport = transport
        self._hang_up = hang_up
        self._head: bytes | None = None
        self.asked_for_body = False
        self.bytes_written = 0

    def write(self, data: bytes) -> None:
        """Send, or keep the head of an answer for what follows it."""
        if data.startswith(INTERIM_ANSWER):
            self.asked_for_body = True
        elif self._head is None:
            self._head = data
            return
        if self._head:
            data, self._head = self._head + data, b""
        self.bytes_written += len(data)
        self._transport.write(data)

    def flush(self) -> None:
        """Send a head that no body follows."""
        if self._head:
            self.write(b"")

    def is_closing(self) -> bool:
        """Whether nothing more is sent."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Send what is left, and hang up."""
        self.flush()
        self._hang_up()
