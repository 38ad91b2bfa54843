"""Answering a call, whichever way it came."""

from collections.abc import Sequence
from typing import Final

from service.errors import ServiceError, TooLargeError
from service.http.access.note import Note
from service.http.bounds import Bounds
from service.http.inference_protocol.calls.call import Call
from service.http.inference_protocol.calls.outputs import Found, tensors
from service.http.inference_protocol.calls.tensors import Tensor
from service.http.options import RequestLimits
from service.http.running import Running
from service.models.served import ServedModel
from service.pipeline.stages import DetectedImage

# The rows of each image, the tensor of all, and its form as bytes.
COPIES_OF_ROWS: Final = 3
ROW_BYTES: Final = 4


def limits_of(running: Running) -> RequestLimits:
    """The limits of a call, which are those of `/detect`."""
    return RequestLimits(
        images=running.settings.max_images_per_request,
        detections=running.settings.max_detections,
        timeout_ms=running.settings.request_timeout_ms,
    )


async def infer(model: ServedModel, call: Call, bounds: Bounds, note: Note) -> list[Tensor]:
    """Detect in the images of a call.

    Args:
        model: The model that the call names.
        call: The call.
        bounds: The time and the memory of the call.
        note: Facts for the access log.

    Raises:
        ServiceError: An image cannot be used, there is no room, or the model failed.
    """
    note["images"] = len(call.sources)
    if call.wants_rows:
        _hold_rows(model, call, bounds)
    names = model.class_names
    options = call.query.resolve(model.defaults, names)
    outcomes = await model.detector.detect_all(
        call.sources, options, bounds.deadline, keep_rows=call.wants_rows
    )
    found = _all_found(outcomes)
    note["detections"] = sum(len(image.detections) for image in found)
    return tensors(Found(found, names, call.query.layout()), call.outputs)


def _hold_rows(model: ServedModel, call: Call, bounds: Bounds) -> None:
    """Hold the memory that the raw rows may take.

    Raises:
        TooLargeError: They would take more than there is.
        BusyError: It is not free.
    """
    contract, count = model.detector.contract, len(call.sources)
    _, rows, channels = contract.rows_shape(count, contract.input.height, contract.input.width)
    needed = COPIES_OF_ROWS * ROW_BYTES * count * rows * channels
    if needed > bounds.capacity:
        raise TooLargeError(
            f"output rows: those of {count} images would take {needed} bytes, and the limit is "
            f"{bounds.capacity}; send fewer images a request"
        )
    bounds.grow(needed)


def _all_found(outcomes: Sequence[DetectedImage | ServiceError]) -> list[DetectedImage]:
    """The images, if all could be used: tensors have no place for the error of one of them.

    Raises:
        ServiceError: One could not be used. The worst of several is told: the one with the highest
            status.
    """
    errors = [(at, each) for at, each in enumerate(outcomes) if isinstance(each, ServiceError)]
    if errors:
        at, worst = max(errors, key=lambda error: error[1].status)
        if len(outcomes) == 1:
            raise worst
        raise type(worst)(f"image {at}: {worst.detail}", retry_after_s=worst.retry_after_s)
    return [each for each in outcomes if isinstance(each, DetectedImage)]
