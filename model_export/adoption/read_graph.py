"""From a third-party graph to the same network with a contract's input and output."""

from dataclasses import dataclass, replace
from typing import Final, NoReturn

import onnx
import onnxruntime

from model_export.adoption.class_names import class_counts, counted, known_names, names_by_number
from model_export.adoption.contract_form import (
    activation_of,
    in_contract_form,
    is_in_contract_form,
)
from model_export.adoption.cutting.before_suppression import before_suppression, without_rows
from model_export.adoption.cutting.raw_rows import at_raw_rows
from model_export.adoption.reading.choice.candidate import Candidate, Progress, Question
from model_export.adoption.reading.choice.pixel_choices import (
    RARE_VALUES,
    TWINS,
    USUAL_VALUES,
)
from model_export.adoption.reading.choice.smaller import read_rows
from model_export.adoption.reading.drawn import Pixels
from model_export.adoption.reading.other_detectors import (
    other_detector,
    shapes_in_words,
    suppression,
)
from model_export.adoption.reading.pictures import grey_picture
from model_export.adoption.reading.rows import FORMS, Form, RowReading
from model_export.adoption.reading.tables import (
    KNOWN_STRIDES,
    arrangements,
)
from model_export.adoption.reading.trial_network import Outputs, TrialNetwork, open_trial
from model_export.errors import ModelExportError
from model_export.graphs.edit import constants_of
from model_export.graphs.network import ImageInput, image_input, open_session
from model_export.graphs.pixel_values import PixelValues
from model_export.graphs.prepare import (
    check_operators,
    foreign_operators,
    without_foreign_operators,
    without_resize,
)
from service.core.contract import BoxCoding, ScoreActivation

# Channels of the first convolution up to which a YOLOX is a nano or a tiny, for 416 pixels.
SMALL_STEM: Final = 24


@dataclass(frozen=True, slots=True)
class Facts:
    """The user's statements about a graph; None leaves a fact to be found out.

    Attributes:
        class_names: One name for each class.
        size: (height, width) in pixels for axes that the graph leaves open.
        strides: Pixels per cell of each level, ascending.
        values: How pixels are made.
        box_coding: The coding of raw boxes.
        photos: Photos to try the model on, (h, w, 3) uint8 BGR.
        tolerates_grey: Accept a model that finds objects on plain grey.
    """

    class_names: tuple[str, ...] | None = None
    size: tuple[int, int] | None = None
    strides: tuple[int, ...] | None = None
    values: PixelValues | None = None
    box_coding: BoxCoding = "yolox"
    photos: tuple[Pixels, ...] = ()
    tolerates_grey: bool = False


@dataclass(frozen=True, slots=True)
class ReadGraph:
    """A graph whose one output has a contract's rows, and how its pixels are made.

    Attributes:
        model: The graph; its input is still as the file has it.
        reading: How the rows were found, with what they find.
        class_names: One name for each class.
        size: (height, width) of its images in pixels.
        is_bound: Whether the rows can be had at this size alone.
        notes: The findings and changes, for the user.
    """

    model: onnx.ModelProto
    reading: Candidate
    class_names: tuple[str, ...]
    size: tuple[int, int]
    is_bound: bool
    notes: tuple[str, ...]

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per cell of each level, ascending."""
        return self.reading.rows.arrangement.strides

    @property
    def score_activation(self) -> ScoreActivation:
        """The kind of scores that the rows of the graph have."""
        return activation_of(self.reading.rows)


def read_graph(model: onnx.ModelProto, facts: Facts, progress: Progress) -> ReadGraph:
    """Find out how a graph is used, and give it the output that a contract promises.

    Raises:
        ModelExportError: It is no YOLOX, or cannot be told how it is used.
    """
    outputs = _outputs_of(model, facts)
    network, class_names, notes = outputs.network, outputs.class_names, outputs.notes
    size = (network.height, network.width)
    found = arrangements(outputs.shapes, size, len(class_names), facts.strides)
    if not found:
        _refuse(outputs, facts)
    question = Question(
        class_names,
        _values(network, facts),
        facts.photos,
        _forms(facts),
        facts.tolerates_grey,
        tries_rare=facts.values is None and network.image.dtype != "uint8",
    )
    reading = read_rows(outputs.model, network, found, question, progress)
    notes += (f"{reading.line(class_names)}; {reading.rows}", *_doubts(reading, facts))
    ranks = {name: len(shape) for name, shape in outputs.shapes.items()}
    first = ranks[reading.rows.arrangement.groups[0][0].output]
    model, rows, cut = at_raw_rows(outputs.model, network, reading, class_names, first)
    reading = replace(reading, rows=rows)
    only = rows.arrangement.groups[0][0].output
    # A graph is cut only where its rows have three axes.
    ranks.setdefault(only, 3)
    plain = is_in_contract_form(rows, ranks[only])
    rewritten = in_contract_form(model, rows, ranks, size, network.image.batch)
    notes += cut if plain else (*cut, "the output is rewritten into raw rows (N, A, 5 + C)")
    return ReadGraph(rewritten, reading, class_names, size, _binds(rows), notes)


@dataclass(frozen=True, slots=True)
class _Outputs:
    """A graph that runs, with the shapes of its outputs for one image and the names of classes."""

    model: onnx.ModelProto
    network: TrialNetwork
    shapes: dict[str, tuple[int, ...]]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


def _outputs_of(model: onnx.ModelProto, facts: Facts) -> _Outputs:
    """Make a graph run, cut suppression off, and find its classes.

    Raises:
        ModelExportError: It does not run, or its classes have no names.
    """
    check_operators(model)
    plugin = ", ".join(dict.fromkeys(node.op_type for node in foreign_operators(model)))
    model, session, notes = _runnable(model, plugin)
    image = image_input(session)
    size = network_size(model, image, facts)
    network, shapes = _tried(TrialNetwork(session, image, *size))
    if facts.size is None and None in (network.image.height, network.image.width):
        notes += (f"the usual size is taken to be {size[0]}x{size[1]}; --size states another",)
    known, told = known_names(model, facts.class_names)
    count = None if known is None else len(known)
    ending = suppression(model)
    if (ending or plugin) and not arrangements(shapes, size, count, facts.strides):
        cut = before_suppression(model, network, count, facts.strides, ending or plugin)
        if cut is not None:
            model, note = cut
            network, shapes = _tried(open_trial(model.SerializeToString(), size))
            notes += (note,)
        elif ending:
            raise ModelExportError(without_rows(ending, count))
    if known is None:
        known, taken = names_by_number(shapes, size, facts.strides)
        told = (taken,) if taken else ()
    return _Outputs(model, network, shapes, known, (*notes, *told))


def _tried(network: TrialNetwork) -> tuple[TrialNetwork, dict[str, tuple[int, ...]]]:
    """A graph, and the shapes of its outputs for one image."""
    grey = grey_picture((network.height, network.width))
    shapes = _shapes(network.run(grey, PixelValues()))
    if not network.is_steady(grey):
        raise ModelExportError(
            "the same picture gives other values each time, so the graph draws random numbers, "
            "as Dropout does in training; export the model after model.eval()"
        )
    return network, shapes


def _doubts(reading: Candidate, facts: Facts) -> tuple[str, ...]:
    """Notes for a user who knows how the model was trained."""
    if facts.values is not None:
        return reading.doubts
    advice = (
        "if you know those of its training, state them with --color, --value-range, --mean and "
        "--std"
    )
    twin = TWINS.get(reading.values)
    if twin is not None:
        guess = (
            f"that it takes {reading.values} was found by trying; {twin} would look the same, and "
            f"boxes would differ by hundredths of a pixel: {advice}"
        )
        return (guess, *reading.doubts)
    if reading.values in RARE_VALUES:
        guess = (
            f"that it takes {reading.values} was found by trying, and numbers near these would "
            f"look the same; {advice}"
        )
        return (guess, *reading.doubts)
    return reading.doubts


def _binds(rows: RowReading) -> bool:
    in_order = rows.levels in ((), tuple(range(len(rows.levels))))
    return not rows.is_raw or not in_order


def _runnable(
    model: onnx.ModelProto, plugin: str
) -> tuple[onnx.ModelProto, onnxruntime.InferenceSession, tuple[str, ...]]:
    """The graph without operators that onnxruntime lacks and its own resizing; and it loaded."""
    notes: tuple[str, ...] = ()
    if plugin:
        model = without_foreign_operators(model)
        if not model.graph.output:
            raise ModelExportError(f"the model needs operators of a plugin: {plugin}")
        notes = (f"{plugin}, which only a plugin can run, is cut off with all that follows",)
    session = open_session(model.SerializeToString())
    resized = without_resize(model, image_input(session))
    if resized is None:
        return model, session, notes
    notes += ("the graph's own resize is taken out: the server letterboxes instead",)
    return resized, open_session(resized.SerializeToString()), notes


def network_size(model: onnx.ModelProto, image: ImageInput, facts: Facts) -> tuple[int, int]:
    """(height, width) as the graph fixes them, or as asked, or as is usual for such a network.

    Raises:
        ModelExportError: The asked size contradicts the graph, or no such network takes it.
    """
    declared = (image.height, image.width)
    usual = _usual_side(model)
    wish = facts.size or (usual, usual)
    height, width = (known or side for known, side in zip(declared, wish, strict=True))
    if facts.size is not None and (height, width) != facts.size:
        raise ModelExportError(f"the model's size is {height}x{width}; leave --size out")
    step = (facts.strides or KNOWN_STRIDES[0])[-1]
    if height <= 0 or width <= 0 or height % step or width % step:
        raise ModelExportError(
            f"the size is {height}x{width}; both sides must be multiples of {step}"
        )
    return height, width


def _usual_side(model: onnx.ModelProto) -> int:
    """416 for networks as narrow as nano and tiny, else 640."""
    constants = constants_of(model.graph)
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] in constants:
            return 416 if constants[node.input[1]].dims[0] <= SMALL_STEM else 640
    return 640


def _values(network: TrialNetwork, facts: Facts) -> tuple[PixelValues, ...]:
    if facts.values is not None:
        return (facts.values,)
    if network.image.dtype == "uint8":
        return tuple(values for values in USUAL_VALUES if not values.is_scaled)
    return USUAL_VALUES


def _forms(facts: Facts) -> tuple[Form, ...]:
    return FORMS if facts.box_coding == "yolox" else ((facts.box_coding, "cells"),)


def _refuse(outputs: _Outputs, facts: Facts) -> NoReturn:
    """Say what outputs without a YOLOX's rows belong to."""
    size = (outputs.network.height, outputs.network.width)
    names = len(outputs.class_names)
    other = other_detector(outputs.shapes, size, names)
    if other:
        raise ModelExportError(
            f"the model is no YOLOX: {other}; its outputs are {shapes_in_words(outputs.shapes)}"
        )
    raise ModelExportError(_misfit(outputs.shapes, size, names, facts))


def _misfit(
    shapes: dict[str, tuple[int, ...]],
    size: tuple[int, int],
    num_classes: int,
    facts: Facts,
) -> str:
    counts = class_counts(shapes, size, facts.strides)
    known = f"the outputs are {shapes_in_words(shapes)}"
    if counts:
        return (
            f"each row has {5 + counts[0]} values, which is {counted(counts[0])} after 4 box "
            f"values and objectness, but there are {num_classes} class names; is --names right? "
            f"{known}"
        )
    cells = sum((size[0] // stride) * (size[1] // stride) for stride in KNOWN_STRIDES[0])
    return (
        f"{known}, but strides 8, 16 and 32 at {size[0]}x{size[1]} with {num_classes} class names "
        f"need {cells} rows of {5 + num_classes} values; other strides need --strides"
    )


def _shapes(outputs: Outputs) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in outputs.items()}
