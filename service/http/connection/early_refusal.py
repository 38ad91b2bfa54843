"""Answering a request that will be refused as soon as its head is there, and skipping its body.

In a crowd nearly all requests are refused; what that costs is missing to those that were let in.
"""

from typing import Any

from starlette.types import ASGIApp, Scope

from service.http.connection.limits import LimitedConnection


class RefusingConnection(LimitedConnection):
    """A connection whose requests may be refused before their bodies are parsed, without a task.

    When many requests come in one packet, only the first is refused at once, so that other
    connections have their turn.

    Args:
        args: See `EndingConnection`.
        kwargs: uvicorn's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*args, **kwargs)
        self._may_answer_now = True
        # Bytes of a refused body that are still to come.
        self._unwanted_bytes = 0

    def received(self, data: bytes) -> None:
        """Parse what is wanted of it."""
        self._may_answer_now = True
        if self._unwanted_bytes:
            self.await_nothing()
        super().received(data)

    def skip(self, data: bytes, at: int) -> int:
        """Skip what there is of a refused body."""
        skipped = min(self._unwanted_bytes, len(data) - at)
        self._unwanted_bytes -= skipped
        if skipped and not self._unwanted_bytes and not self.lingers:
            self.expect_nothing()
        return at + skipped if self._unwanted_bytes else super().skip(data, at + skipped)

    @property
    def owes_body(self) -> bool:
        """Whether a part of a body is still to come, wanted or not."""
        return super().owes_body or self._unwanted_bytes > 0

    def got_body(self, count: int) -> None:
        """A body that was refused in the middle of its packet is parsed as far as that goes."""
        super().got_body(count)
        if self._unwanted_bytes:
            self._unwanted_bytes -= count

    def parse(self, data: bytes | memoryview) -> None:
        """Parse; where that led to a refusal, the parser must not see the rest of the body."""
        super().parse(data)
        if self._unwanted_bytes:
            self.parse_anew()
            self.expect_next_head()

    def answerer(self, scope: Scope) -> ASGIApp | None:
        """An application that refuses the request, if it is to be refused."""
        if self.must_wait or not self._may_answer_now:
            return None
        refusal = self.door.refusing(scope)
        if refusal is not None:
            self._may_answer_now = False
            self.rest(self.door.crowd.rest_s())
            if self.head_just_came:
                # The parser alone can find the end of a chunked body.
                self._unwanted_bytes = self.declared_length
        return refusal
