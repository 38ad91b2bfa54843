"""The head of a request, which may come in any pieces: where it ends, and what of it to parse."""

import re
from typing import Final

END_OF_HEAD: Final = b"\r\n\r\n"
UPGRADE: Final = b"upgrade:"
UPGRADE_LINE: Final = re.compile(rb"(?<=\n)upgrade:[^\n]*\n", re.IGNORECASE)
REQUEST_LINE: Final = re.compile(rb"\S+ +\S+ +HTTP/(\d+(?:\.\d+)?)\r?\n")
# Nobody asks for the version of a request line that is longer.
MAX_FIRST_LINE: Final = 4096


class Head:
    """Takes one head after another, and leaves out the wish for another protocol.

    Clients that would also speak HTTP/2 are answered in HTTP/1.1. The parser would take their body
    for the first words of another protocol.

    Attributes:
        size: The bytes of this head so far.
    """

    def __init__(self) -> None:
        self.size = 0
        self.expect()

    def expect(self, before: bytes = b"") -> None:
        """Begin a head; its first bytes may have come with the body before it.

        Args:
            before: The last bytes, up to three, of what came before.
        """
        self.size = 0
        self._seen = before
        self._first_line = b""
        self._at_line_start = False
        # The beginning of a line that may ask for another protocol; its rest is still to come.
        self._held = b""

    def end_in(self, data: bytes, at: int) -> int:
        """Where the head that goes on at an index ends; the length of the data if it goes on."""
        end = self._find_end(data, at)
        self._seen = (self._seen + data[max(at, end - 3) : end])[-3:]
        self.size += end - at
        return end

    def wanted(self, piece: bytes) -> bytes:
        """The part of the next piece that is to be parsed."""
        if b"\n" not in self._first_line and len(self._first_line) < MAX_FIRST_LINE:
            self._first_line += piece
        piece, self._held = self._held + piece, b""
        if not piece.endswith(END_OF_HEAD):
            piece = self._without_open_line(piece)
        if UPGRADE in piece.lower():
            before = b"\n" if self._at_line_start else b" "
            piece = UPGRADE_LINE.sub(b"", before + piece)[1:]
        if piece:
            self._at_line_start = piece.endswith(b"\n")
        return piece

    @property
    def version(self) -> str | None:
        """The version of HTTP that the request line names, if it is one."""
        line = REQUEST_LINE.match(self._first_line)
        return line[1].decode() if line else None

    def _without_open_line(self, piece: bytes) -> bytes:
        """A piece without its last line, if that may turn out to ask for another protocol."""
        start = piece.rfind(b"\n") + 1
        line = piece[start:]
        may_ask = UPGRADE.startswith(line[: len(UPGRADE)].lower())
        if not may_ask or not (start or self._at_line_start):
            return piece
        self._held = line
        return piece[:start]

    def _find_end(self, data: bytes, at: int) -> int:
        if self._seen:
            found = (self._seen + data[at : at + 3]).find(END_OF_HEAD)
            if found >= 0:
                return at + found + len(END_OF_HEAD) - len(self._seen)
        found = data.find(END_OF_HEAD, at)
        return len(data) if found < 0 else found + len(END_OF_HEAD)
