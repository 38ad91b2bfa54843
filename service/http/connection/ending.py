"""How a connection ends: by the server's patience, by its client, or for want of room."""

import asyncio
import socket
from typing import Any, Final

from service.errors import TooManyConnectionsError
from service.http.connection.crowd import DropReason
from service.http.connection.door import Door
from service.http.connection.head import Head
from service.http.connection.uvicorn_hooks import Connection

HEAD_TIMEOUT_S: Final = 15.0
# How long a client may go on sending a body that nobody wants, once the last answer is out.
LINGER_S: Final = 15.0
# A client that reads less than this, of an answer that waits for it, in this time is given up.
READING_S: Final = 30.0
MIN_READ_BYTES: Final = 2**20
# How long a client that is refused for good may go on sending: to close at once would have its
# system throw the answer away.
TELLING_S: Final = 1.0
# How many connections beyond the limit are told why they end; more are only reset.
TOLD_OF_LIMIT: Final = 64
# From a client's last byte to the first look whether it has left altogether; then twice as long.
LEAVING_S: Final = 0.05
# The state of a connection that the other side has reset, in Linux's TCP_INFO.
TCP_CLOSED: Final = b"\x07"


class EndingConnection(Connection):
    """Hangs up on a client that sends or reads nothing, and on one too many.

    Args:
        door: Answers the requests that are refused.
        args: uvicorn's.
        kwargs: uvicorn's.

    Attributes:
        head: The head that is expected or has begun, or was the last.
        in_head: Whether a head is expected or has begun, rather than a body.
        awaits_answer: Whether a request has come whose answer is not out.
        lingers: Whether the last answer is out, and the client may still be sending.
        has_ended_sending: Whether the client has closed its side, and still waits for an answer.
    """

    def __init__(self, door: Door, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*args, **kwargs)
        self.door = door
        self.head = Head()
        self.in_head = True
        self.awaits_answer = self.lingers = self.has_ended_sending = False
        self._may_linger = True
        self._hang_up_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    def opened(self) -> None:
        """Wait for the first request, but not for ever; refuse a connection beyond the limit."""
        crowd = self.door.crowd
        crowd.joined()
        over = len(self.connections) - crowd.max_connections
        if over <= 0 or self._makes_room():
            self.expect_head()
            return
        crowd.dropped("too-many", self.client)
        if over > TOLD_OF_LIMIT:
            self.transport.abort()
        else:
            taken = f"all {crowd.max_connections} connections are taken"
            refusal = self.door.rejecting(TooManyConnectionsError(taken, retry_after_s=1))
            self.answer_no_request(refusal, lambda: self.linger(TELLING_S))

    def lost(self) -> None:
        """Forget the timers."""
        self.door.crowd.left()
        self.expect_nothing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()

    # Time to send.

    def expect_head(self) -> None:
        """Give the client a time to send a whole head."""
        self._hang_up_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._drop_for_head)

    def expect_rest_of_body(self) -> None:
        """Give the client a time to send the rest of an unwanted body, however slowly it comes."""
        if self._hang_up_timer is None:
            self._hang_up_timer = self.loop.call_later(LINGER_S, self._drop, "slow-request")

    def expect_nothing(self) -> None:
        """Stop the time that a head, or the rest of a body, may take."""
        if self._hang_up_timer is not None:
            self._hang_up_timer.cancel()
            self._hang_up_timer = None

    @property
    def is_timed(self) -> bool:
        """Whether such a time runs."""
        return self._hang_up_timer is not None

    def _drop_for_head(self) -> None:
        self._drop("slow-request" if self.head.size else "no-request")

    # Time to read.

    def unread(self) -> None:
        """Watch whether the client reads, as long as something waits for it."""
        if self._unread_timer is None and self.unread_bytes:
            look, so_far = self._see_whether_it_reads, self.read_bytes
            self._unread_timer = self.loop.call_later(READING_S, look, so_far)

    def _see_whether_it_reads(self, read_before: int) -> None:
        self._unread_timer = None
        if not self.unread_bytes or self.read_bytes - read_before >= MIN_READ_BYTES:
            self.unread()
            return
        self.door.crowd.dropped("unread-answer", self.client)
        # To close would wait for the client to read the rest.
        self.transport.abort()

    def idle(self) -> bool:
        """Whether to end the connection; while an answer is unread, another clock runs."""
        return not self.unread_bytes

    # Ends.

    def answered_unasked(self) -> None:
        """Hang up: only the client knows whether its body will come."""
        if not self.in_head:
            self.hang_up()

    def hang_up(self) -> None:
        """Close, but not on a client that still sends: its system would throw the answer away."""
        if self.in_head or not self.answered or not self._may_linger:
            self.transport.close()
        elif not self.lingers:
            self.linger(LINGER_S)

    def linger(self, seconds: float) -> None:
        """Tell the client that the answer was the last, and give it time to read it."""
        self.lingers = True
        self.transport.write_eof()
        self.expect_nothing()
        self._hang_up_timer = self.loop.call_later(seconds, self.transport.close)

    def stopping(self) -> bool:
        """Wait for no body that is not wanted, but for a head that has begun."""
        self._may_linger = False
        return not (self.in_head and self.head.size)

    def ended_sending(self) -> bool:
        """Whether the client, which has closed its side, is still to be answered."""
        if not self.owes_answer or self.transport.is_closing():
            return False
        self.has_ended_sending = True
        self.probe_client()
        self.loop.call_later(LEAVING_S, self._see_whether_it_left, LEAVING_S)
        return True

    @property
    def owes_answer(self) -> bool:
        """Whether a whole request has come whose answer is not out."""
        return self.awaits_answer and self.in_head

    def _see_whether_it_left(self, after_s: float) -> None:
        if self.transport.is_closing() or not self.awaits_answer:
            return
        if _is_reset(self.transport):
            self.transport.abort()
        else:
            self.loop.call_later(2 * after_s, self._see_whether_it_left, 2 * after_s)

    # Room.

    @property
    def is_spare(self) -> bool:
        """Whether the client would lose nothing but the connection, if it were closed."""
        is_idle = self.answered and self.in_head and not self.head.size
        is_open = not self.transport.is_closing() and not self.unread_bytes
        return is_open and (is_idle or self.lingers)

    def _makes_room(self) -> bool:
        """Close another connection that is not needed, if there is one."""
        others = (one for one in self.connections if isinstance(one, EndingConnection))
        spare = next((one for one in others if one.is_spare), None)
        if spare is not None:
            spare._drop("too-many")  # noqa: SLF001 - another of this class
        return spare is not None

    def _drop(self, reason: DropReason) -> None:
        self.door.crowd.dropped(reason, self.client)
        self.transport.close()


def _is_reset(transport: asyncio.Transport) -> bool:
    """Whether the client's system has objected to a probe; False where this one does not tell."""
    try:
        state = transport.get_extra_info("socket").getsockopt(
            socket.IPPROTO_TCP, socket.TCP_INFO, 1
        )
    except (AttributeError, OSError):
        return False
    return bool(state == TCP_CLOSED)
