"""Between the messages of gRPC and the calls that HTTP has as well."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from service.errors import MalformedRequestError, TooLargeError
from service.grpc.messages import inference_pb2 as pb
from service.http.inference_protocol.calls.call import (
    Call,
    read_id,
    read_options,
    read_outputs,
    refuse_unknown,
)
from service.http.inference_protocol.calls.images import (
    IMAGE,
    MAX_TEXT_VALUES,
    ImageTensor,
    read_images,
)
from service.http.inference_protocol.calls.tensors import Tensor, as_bytes
from service.http.options import RequestLimits
from service.pipeline.stages import ImageSource


def parameters_of(given: Mapping[str, Any]) -> dict[str, object]:
    """Parameters by name; one without a value counts as absent."""
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in given.items()}
    return {name: getattr(given[name], choice) for name, choice in chosen.items() if choice}


def read_call(request: pb.ModelInferRequest, limits: RequestLimits) -> Call:
    """The call that a message holds.

    Raises:
        MalformedRequestError: An input or output is unknown, or the data is not what it says.
        TooLargeError: It has more images than a request may.
        InvalidOptionError: An option is unknown or out of range.
    """
    for output in request.outputs:
        refuse_unknown(output.parameters, (), f"output {output.name!r:.40}")
    return Call(
        id=read_id(request.id),
        sources=read_images(_image(request), limits.images),
        query=read_options(parameters_of(request.parameters), limits),
        outputs=read_outputs([output.name for output in request.outputs]),
    )


def _image(request: pb.ModelInferRequest) -> ImageTensor:
    if [each.name for each in request.inputs] != [IMAGE]:
        names = ", ".join(repr(each.name) for each in request.inputs[:4]) or "none"
        raise MalformedRequestError(f"inputs: the one input is 'image', and {names:.80} was sent")
    (image,) = request.inputs
    refuse_unknown(image.parameters, (), "input image")
    shape, raw = tuple(image.shape), request.raw_input_contents
    if not raw:
        return ImageTensor(image.datatype, shape, _contents(image))
    if len(raw) > 1 or image.HasField("contents"):
        raise MalformedRequestError(
            "raw_input_contents must have one entry for the one input, and contents none"
        )
    return ImageTensor(image.datatype, shape, memoryview(raw[0]))


def _contents(image: Any) -> Sequence[ImageSource] | np.ndarray[Any, Any]:  # noqa: ANN401 - nested in a generated class
    contents = image.contents
    if image.datatype == "BYTES":
        return [ImageSource(each) for each in contents.bytes_contents]
    if len(contents.uint_contents) > MAX_TEXT_VALUES:
        raise TooLargeError(
            f"input image: contents may have at most {MAX_TEXT_VALUES} numbers; send pixels in "
            "raw_input_contents"
        )
    return np.array(contents.uint_contents, np.float64)


def write_answer(
    model: tuple[str, str], call_id: str, tensors: Sequence[Tensor]
) -> pb.ModelInferResponse:
    """The message that answers a call.

    Args:
        model: Name and version of the model that answered.
        call_id: The call's id.
        tensors: The outputs.
    """
    name, version = model
    return pb.ModelInferResponse(
        model_name=name,
        model_version=version,
        id=call_id,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(
                name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
            )
            for tensor in tensors
        ],
        raw_output_contents=[as_bytes(tensor) for tensor in tensors],
    )
