"""The body of a call by HTTP: JSON, and tensors as bytes behind it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError

from service.errors import MalformedRequestError, TooLargeError
from service.http.bodies.json_form import BYTE_ORDER_MARK, MAX_JSON_VALUES, refuse_costly
from service.http.inference_protocol.calls.call import (
    BINARY_OUTPUT,
    Call,
    read_flag,
    read_id,
    read_options,
    read_outputs,
    refuse_unknown,
)
from service.http.inference_protocol.calls.images import (
    IMAGE,
    MAX_TEXT_VALUES,
    ImageTensor,
    numbers,
    read_images,
)
from service.http.options import NO_OPTIONS, RequestLimits
from service.http.problems import describe_errors
from service.pipeline.stages import ImageSource

BINARY_SIZE: Final = "binary_data_size"
BINARY: Final = "binary_data"
# MLServer's word for base64 in JSON; a file could not be written there in any other way.
CONTENT_TYPE: Final = "content_type"
MAX_DIGITS: Final = 18
MAX_AXES: Final = 8

# Clients that write every field write null where they have no value.
Parameters = dict[str, Any] | None
Length = Annotated[int, Field(strict=True, ge=0, lt=2**63)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class RequestInput(_Strict):
    """An input of a call: the images."""

    name: StrictStr = Field(description="`image`, the only input")
    shape: list[Length] = Field(
        description="[N] for BYTES, [N, height, width, 3] for UINT8", max_length=MAX_AXES
    )
    datatype: StrictStr = Field(
        description="`BYTES`: image files, or `UINT8`: pixels, RGB, row by row from the top"
    )
    parameters: Parameters = Field(
        None,
        description="`binary_data_size`: its bytes behind the JSON, instead of `data`",
    )
    data: list[Any] | None = Field(
        None, description="Files in base64, or pixels as numbers, nested or not"
    )


class RequestedOutput(_Strict):
    """An output that a call asks for."""

    name: StrictStr = Field(description="One of the outputs in the model's metadata")
    parameters: Parameters = Field(
        None, description="`binary_data`: whether as bytes behind the JSON"
    )


class InferenceRequest(_Strict):
    """The JSON of a call."""

    id: StrictStr | None = Field(None, description="An id, which the answer repeats")
    model_name: StrictStr | None = Field(None, description="Ignored: the path names the model")
    model_version: StrictStr | None = Field(None, description="Ignored, likewise")
    parameters: Parameters = Field(
        None,
        description="Options of `/detect` except `format`; `binary_data_output`; `timeout`, in µs",
    )
    # Its length is checked where the error can name what was sent instead.
    inputs: list[RequestInput] = Field(
        description="The input `image`", json_schema_extra={"minItems": 1, "maxItems": 1}
    )
    outputs: list[RequestedOutput] | None = Field(
        None,
        description="The outputs to answer with (none: all but `rows` and `letterboxes`)",
    )


@dataclass(frozen=True, slots=True)
class HttpCall:
    """A call by HTTP.

    Attributes:
        call: The call.
        binary: Names of the outputs that are to be answered as bytes.
    """

    call: Call
    binary: frozenset[str]


def read_call(body: bytes, header_length: str | None, limits: RequestLimits) -> HttpCall:
    """A call from the body of its request.

    Args:
        body: The whole body.
        header_length: `Inference-Header-Content-Length`, the length of the JSON, if it was sent.
            With 0, there is no JSON, and the body is one image file.
        limits: The server's limits.

    Raises:
        MalformedRequestError: The body is no such call.
        TooLargeError: It has more images, values or escapes than a request may.
        InvalidOptionError: An option is unknown or out of range.
    """
    length = _length(header_length, len(body))
    if length == 0 and header_length is not None:
        if not body:
            raise MalformedRequestError("the request holds no image; send its bytes as the body")
        return HttpCall(Call("", [ImageSource(body)], NO_OPTIONS, read_outputs([])), frozenset())
    parsed = _parsed(body[:length])
    tensor = _image(parsed.inputs, memoryview(body)[length:])
    call = Call(
        id=read_id(parsed.id or ""),
        sources=read_images(tensor, limits.images),
        query=read_options(parsed.parameters or {}, limits),
        outputs=read_outputs([output.name for output in parsed.outputs or ()]),
    )
    return HttpCall(call, _binary(parsed, call))


def _length(given: str | None, whole: int) -> int:
    """The length of the JSON in a body."""
    if given is None:
        return whole
    digits = given.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MAX_DIGITS):
        raise MalformedRequestError("Inference-Header-Content-Length must be a number of bytes")
    if int(digits) > whole:
        raise MalformedRequestError(
            f"Inference-Header-Content-Length is {digits}, and the body has {whole} bytes"
        )
    return int(digits)


def _parsed(text: bytes) -> InferenceRequest:
    try:
        refuse_costly(text, MAX_TEXT_VALUES + MAX_JSON_VALUES)
    except TooLargeError as error:
        raise TooLargeError(
            f"{error.detail}; send the tensor in binary form, as bytes behind the JSON with "
            f"{BINARY_SIZE}, or send image files as BYTES"
        ) from error
    try:
        return InferenceRequest.model_validate_json(text.removeprefix(BYTE_ORDER_MARK))
    except ValidationError as error:
        faults = error.errors()
        if faults[0]["type"] == "json_invalid":
            raise MalformedRequestError(
                f"the body is not JSON ({faults[0]['msg']}); where bytes follow the JSON, "
                "Inference-Header-Content-Length tells its length"
            ) from error
        if "shape" in faults[0]["loc"][2:3]:
            raise MalformedRequestError(
                "input image: its shape must be a list of at most "
                f"{MAX_AXES} lengths, each a whole number from 0, such as [1] for one image; "
                "-1 stands for any length in the metadata of a model, and in no request"
            ) from error
        place = ".".join(map(str, faults[0]["loc"][:-1]))
        raise MalformedRequestError(
            f"malformed request: {place}{': ' if place else ''}{describe_errors(faults[:1])}"
        ) from error


def _image(inputs: list[RequestInput], rest: memoryview) -> ImageTensor:
    """The one input, from the JSON or from the bytes behind it."""
    if [each.name for each in inputs] != [IMAGE]:
        given = ", ".join(repr(each.name) for each in inputs[:4]) or "none"
        raise MalformedRequestError(f"inputs: the one input is 'image', and {given:.80} was sent")
    (image,) = inputs
    parameters = image.parameters or {}
    refuse_unknown(parameters, (BINARY_SIZE, CONTENT_TYPE), "input image")
    if parameters.get(CONTENT_TYPE, "base64") != "base64":
        raise MalformedRequestError("input image: the only content_type is base64")
    size = parameters.get(BINARY_SIZE)
    if size is not None:
        return _binary_image(image, size, rest)
    if image.data is None:
        raise MalformedRequestError(f"input image has neither data nor {BINARY_SIZE}")
    if len(rest):
        raise MalformedRequestError(
            f"{len(rest)} bytes follow the JSON, and no input has {BINARY_SIZE}"
        )
    content = _text_files(image.data) if image.datatype == "BYTES" else numbers(image.data)
    return ImageTensor(image.datatype, tuple(image.shape), content)


def _binary_image(given: RequestInput, size: object, rest: memoryview) -> ImageTensor:
    if given.data is not None:
        raise MalformedRequestError(f"input image has both data and {BINARY_SIZE}")
    if type(size) is not int or size != len(rest):
        raise MalformedRequestError(
            f"input image: {BINARY_SIZE} is {size!r:.40}, and {len(rest)} bytes follow the JSON"
        )
    return ImageTensor(given.datatype, tuple(given.shape), rest)


def _text_files(data: list[Any]) -> list[ImageSource]:
    """Image files in base64, one for each element."""
    if not all(isinstance(each, str) for each in data):
        raise MalformedRequestError("input image: in JSON, BYTES are image files in base64")
    return [ImageSource(each.encode(errors="replace"), "base64") for each in data]


def _binary(parsed: InferenceRequest, call: Call) -> frozenset[str]:
    """The outputs that are to be answered as bytes."""
    everywhere = read_flag(parsed.parameters or {}, BINARY_OUTPUT, default=False)
    own: dict[str, Mapping[str, Any]] = {
        each.name: each.parameters or {} for each in parsed.outputs or ()
    }
    for name, parameters in own.items():
        refuse_unknown(parameters, (BINARY,), f"output {name}")
    return frozenset(
        name for name in call.outputs if read_flag(own.get(name, {}), BINARY, default=everywhere)
    )
