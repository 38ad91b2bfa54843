"""Tensors as the protocol has them: their types, and their form as bytes."""

import struct
from dataclasses import dataclass
from typing import Any, Final, Literal

from numpy.typing import NDArray

from service.errors import MalformedRequestError

Datatype = Literal["BYTES", "FP32", "INT64", "UINT8"]

# Little-endian on every machine.
NUMBERS: Final[dict[Datatype, str]] = {"FP32": "<f4", "INT64": "<i8", "UINT8": "|u1"}
LENGTH: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of an answer.

    Attributes:
        name: Its name.
        datatype: The type of its elements.
        values: The elements, of the tensor's shape; those of BYTES are `bytes` objects.
    """

    name: str
    datatype: Datatype
    values: NDArray[Any]

    @property
    def shape(self) -> list[int]:
        """The length of each axis."""
        return list(self.values.shape)

    def elements(self) -> list[Any]:
        """The elements in one list, row by row."""
        listed: list[Any] = self.values.ravel().tolist()
        return listed


def as_bytes(tensor: Tensor) -> bytes:
    """The elements as bytes, row by row: numbers little-endian, BYTES each behind its length."""
    if tensor.datatype != "BYTES":
        return tensor.values.astype(NUMBERS[tensor.datatype], copy=False).tobytes()
    return b"".join(LENGTH.pack(len(each)) + each for each in tensor.elements())


def split_elements(data: memoryview, count: int, name: str) -> list[bytes]:
    """The elements of a BYTES tensor, each of which comes behind its length in four bytes.

    Args:
        data: The tensor as bytes.
        count: The number of elements that its shape promises.
        name: The tensor's name.

    Raises:
        MalformedRequestError: The data is cut short, or holds another number of elements.
    """
    elements, at = list[bytes](), 0
    while at < len(data):
        if len(elements) == count:
            raise MalformedRequestError(
                f"input {name}: {len(data) - at} bytes follow the {count} elements of its shape"
            )
        start = at + LENGTH.size
        if start > len(data):
            raise MalformedRequestError(f"input {name}: the last element's length is cut short")
        (length,) = LENGTH.unpack_from(data, at)
        at = start + length
        if at > len(data):
            raise MalformedRequestError(
                f"input {name}: element {len(elements)} should have {length} bytes, and "
                f"{len(data) - start} follow; in BYTES, a length in four bytes, little-endian, "
                "comes before each element"
            )
        elements.append(bytes(data[start:at]))
    if len(elements) < count:
        raise MalformedRequestError(
            f"input {name}: its shape promises {count} elements, and its data holds {len(elements)}"
        )
    return elements
