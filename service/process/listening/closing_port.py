"""Closing a port without resetting a connection that a client believes to have.

The kernel finishes the handshake of a connection before the server accepts it, and resets those
that are not accepted when the port closes. A balancer may have sent a request on one of them.
"""

import ctypes
import os
import socket
import struct
import sys
from contextlib import suppress
from typing import Final

# Between the last packet that may begin a connection and closing the port: a handshake and a turn
# of the event loop fit in.
HANDSHAKE_S: Final = 0.2
# Linux's option; Python has no name for it.
SO_ATTACH_FILTER: Final = 26
# A program for the kernel's packet filter (code, jump if true, jump if false, operand), which sees
# a TCP segment from its header on. Byte 13 holds the flags; only a first packet has SYN set.
DROP_FIRST_PACKETS: Final = (
    (0x30, 0, 0, 13),  # load the flags
    (0x45, 0, 1, 0x02),  # go on if SYN is set, else skip one line
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # take it whole
)


def begin_no_connections(listener: int) -> None:
    """Have the kernel ignore attempts to connect, but finish those that have begun.

    A client whose attempt is ignored tries again a second later, and is then told that the port is
    closed, so that a balancer takes another server. Where there is no such filter, nothing happens.

    Args:
        listener: File descriptor of a socket that listens.
    """
    if sys.platform != "linux":
        return
    program = b"".join(struct.pack("HBBI", *line) for line in DROP_FIRST_PACKETS)
    lines = ctypes.create_string_buffer(program, len(program))
    pointer = struct.pack("HL", len(DROP_FIRST_PACKETS), ctypes.addressof(lines))
    with socket.socket(fileno=os.dup(listener)) as copy, suppress(OSError):
        if copy.family == socket.AF_UNIX:
            return
        copy.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, pointer)
