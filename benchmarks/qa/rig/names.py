"""A DNS server for one name, as Docker's is for a service: an address for each of its replicas."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

HEADER_BYTES: Final = 12
# A response to a standard query, by a server that asks others on the client's behalf.
ANSWERS: Final = 0x8180
A_RECORD: Final = 1
IN_INTERNET: Final = 1
SECONDS_VALID: Final = 1
# The name of each record is that of the question, which begins after the header.
SAME_NAME: Final = 0xC000 | HEADER_BYTES


class Names:
    """The addresses that the server tells; they may change at any time.

    Args:
        addresses: IPv4 addresses.

    Attributes:
        port: Where it listens, on this machine.
    """

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def answer_all(self) -> None:
        """Answer until the socket is closed."""
        while True:
            query, asker = self._socket.recvfrom(512)
            if not query:
                return
            self._socket.sendto(_answer(query, self.addresses), asker)

    def stop(self) -> None:
        """Have `answer_all` return."""
        self._socket.sendto(b"", ("127.0.0.1", self.port))

    def close(self) -> None:
        """Free the port."""
        self._socket.close()


@contextmanager
def telling(addresses: list[str]) -> Iterator[Names]:
    """A DNS server for the length of a trial."""
    names = Names(addresses)
    thread = threading.Thread(target=names.answer_all)
    thread.start()
    try:
        yield names
    finally:
        names.stop()
        thread.join()
        names.close()


def _answer(query: bytes, addresses: list[str]) -> bytes:
    """A packet with all addresses, whichever name was asked for."""
    number = query[:2]
    question = query[HEADER_BYTES : query.index(b"\0", HEADER_BYTES) + 5]
    counts = struct.pack(">HHHHH", ANSWERS, 1, len(addresses), 0, 0)
    records = b"".join(
        struct.pack(">HHHIH", SAME_NAME, A_RECORD, IN_INTERNET, SECONDS_VALID, 4)
        + socket.inet_aton(address)
        for address in addresses
    )
    return number + counts + question + records
