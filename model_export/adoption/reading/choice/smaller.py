"""Read a graph of large images on smaller ones, which takes a tenth of the time."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import onnx

from model_export.adoption.reading.choice.candidate import Candidate, Progress, Question
from model_export.adoption.reading.choice.choose import MAX_ON_GREY, MIN_SENSE, choose_reading
from model_export.adoption.reading.evidence import find, largest_joint
from model_export.adoption.reading.pictures import (
    first_pictures,
    grey_picture,
    knows_drawn,
    photo_pictures,
)
from model_export.adoption.reading.tables import Arrangement, arrangements
from model_export.adoption.reading.trial_network import TrialNetwork, open_trial
from model_export.errors import ModelExportError
from model_export.graphs.open_axes import open_size_axes
from model_export.graphs.pixel_values import PixelValues
from model_export.graphs.probe import is_large

# Sides that smaller images have at least, pixels.
SMALL_SIDE: Final = 416


def read_rows(
    model: onnx.ModelProto,
    network: TrialNetwork,
    found: Sequence[Arrangement],
    question: Question,
    progress: Progress,
) -> Candidate:
    """Choose the reading of a graph; if its images are large, on smaller ones where it takes them.

    The result for smaller images has to hold at the full size, or all is tried there.

    Args:
        model: The graph.
        network: The same graph, loaded.
        found: The ways in which its outputs can hold rows.
        question: The known facts, and the choices.
        progress: Told what is done.

    Raises:
        ModelExportError: No reading makes sense, or several do; the message lists them.
    """
    if is_large(network.height, network.width):
        reading = _read_small(model, network, found, question, progress)
        if reading is not None:
            return reading
    return choose_reading(network, found, question, progress)


def _read_small(
    model: onnx.ModelProto,
    network: TrialNetwork,
    found: Sequence[Arrangement],
    question: Question,
    progress: Progress,
) -> Candidate | None:
    """The reading, with what it finds at full size; None if the sizes do not agree."""
    try:
        small = _smaller(model, network, found)
        reading = choose_reading(small, found, question, progress)
        progress(f"trying the result at {network.height}x{network.width}")
        large = _at_size(network, reading, question)
    except ModelExportError:
        return None
    finds_less = large.sense < MIN_SENSE <= reading.sense
    on_grey = large.grey > MAX_ON_GREY and not question.tolerates_grey
    return None if finds_less or on_grey else large


def _smaller(
    model: onnx.ModelProto, network: TrialNetwork, found: Sequence[Arrangement]
) -> TrialNetwork:
    """The same graph for smaller images.

    Raises:
        ModelExportError: It fails on them, or its outputs no longer have a row for each cell.
    """
    strides = found[0].strides
    full = (network.height, network.width)
    step = strides[-1]
    size = (_small_side(full[0], step), _small_side(full[1], step))
    levels = [(full[0] // stride) * (full[1] // stride) for stride in strides]
    opened = open_size_axes(model, network.image, {*levels, sum(levels)})
    for value in opened.graph.output:
        value.type.tensor_type.ClearField("shape")
    small = open_trial(opened.SerializeToString(), size)
    outputs = small.run(grey_picture(size), PixelValues())
    shapes = {name: value.shape for name, value in outputs.items()}
    if arrangements(shapes, size, found[0].channels - 5, strides) != list(found):
        raise ModelExportError(f"the outputs do not follow the size of the image, {size}")
    return small


def _small_side(side: int, step: int) -> int:
    return min(side, -(-SMALL_SIDE // step) * step)


def _at_size(network: TrialNetwork, reading: Candidate, question: Question) -> Candidate:
    """The reading with what it finds on the first pictures at the network's own size."""
    size = (network.height, network.width)
    expects_drawn = knows_drawn(question.class_names)
    pictures = [
        *first_pictures(size, question.class_names),
        *photo_pictures(question.photos, size),
    ]
    rows, values = reading.rows, reading.values
    grey = rows.arrangement.table(network.run(grey_picture(size), values))
    found = [
        find(
            rows,
            rows.arrangement.table(network.run(picture.image, values)),
            picture,
            expects_drawn=expects_drawn,
        )
        for picture in pictures
    ]
    return replace(
        reading,
        grey=largest_joint(rows, grey),
        sense=sum(each.sense for each in found),
        found=tuple(each.objects for each in found),
    )
