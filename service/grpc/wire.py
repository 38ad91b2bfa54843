"""A look at a message before it is parsed: what that would cost.

A message of two bytes an entry takes a hundred bytes an entry once it is parsed. Only images may be
long, and they are not parsed further.
"""

from collections.abc import Iterator
from typing import Final

from service.errors import MalformedRequestError, TooLargeError

# A call with one image has about ten.
MAX_FIELDS: Final = 4096
# Room for the pixels that `contents` may have as numbers, of one or two bytes each.
MAX_PARSED_BYTES: Final = 512 * 1024
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIXED: Final = {FIXED64: 8, FIXED32: 4}
# Numbers of fields in `inference.proto`: a request's inputs, and the inputs as bytes; an input's
# contents, and their elements of type BYTES.
INPUTS, RAW_INPUTS, CONTENTS, ELEMENTS = 5, 7, 5, 8


def refuse_costly(message: memoryview) -> None:
    """See before parsing a `ModelInferRequest` that it takes little more memory than its bytes.

    Raises:
        MalformedRequestError: The bytes are no message.
        TooLargeError: It has more fields, or more beside images, than a call may.
    """
    count = parsed = 0
    for length in _lengths(message):
        count, parsed = count + 1, parsed + length
        if count > MAX_FIELDS or parsed > MAX_PARSED_BYTES:
            raise TooLargeError("the call has more fields, or more text, than a call may")


def _lengths(message: memoryview) -> Iterator[int]:
    """The bytes of each field that are parsed further."""
    for number, payload in _fields(message):
        if number == INPUTS:
            yield 0
            yield from _lengths_in_input(payload)
        else:
            yield 0 if number == RAW_INPUTS else len(payload)


def _lengths_in_input(message: memoryview) -> Iterator[int]:
    for number, payload in _fields(message):
        if number == CONTENTS:
            yield from (0 if inner == ELEMENTS else len(each) for inner, each in _fields(payload))
        yield 0 if number == CONTENTS else len(payload)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and payload of each field."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        start = at
        if kind == VARINT:
            _, at = _varint(message, at)
        elif kind == BYTES:
            length, start = _varint(message, at)
            at = start + length
        elif kind in FIXED:
            at += FIXED[kind]
        else:
            raise _malformed()
        if at > len(message):
            raise _malformed()
        yield number, message[start:at]


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number in base 128, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise _malformed()


def _malformed() -> MalformedRequestError:
    return MalformedRequestError("the message is malformed, cut short, or compressed")
