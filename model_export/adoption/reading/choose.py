"""Choose the one reading of a graph that makes sense, or say what each of them finds."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from model_export.adoption.reading.drawn import Pixels
from model_export.adoption.reading.evidence import Found, agree, find, largest_joint
from model_export.adoption.reading.level_order import level_order
from model_export.adoption.reading.pictures import (
    CHANGES,
    TrialPicture,
    drawn_pictures,
    first_pictures,
    grey_picture,
    knows_drawn,
    photo_pictures,
)
from model_export.adoption.reading.rows import (
    FORMS,
    USUAL_ORDER,
    Form,
    RowReading,
    oddity,
    row_readings,
)
from model_export.adoption.reading.tables import Arrangement
from model_export.adoption.reading.trial_network import Outputs, TrialNetwork
from model_export.errors import ModelExportError
from model_export.graphs.pixel_values import LEGACY, PixelValues
from service.core.decode import Detections

# The pixel values that YOLOX models and their forks are trained with, the usual one first.
USUAL_VALUES: Final = (
    PixelValues(),
    PixelValues("RGB"),
    PixelValues("RGB", (0.0, 1.0)),
    PixelValues("BGR", (0.0, 1.0)),
    LEGACY,
    PixelValues("BGR", (0.0, 1.0), LEGACY.mean[::-1], LEGACY.std[::-1]),
    PixelValues("RGB", (-1.0, 1.0)),
    PixelValues("BGR", (-1.0, 1.0)),
)
# The largest joint score on grey: 0.00 for ten good models of eight origins, and above this for
# ten of eleven that were read wrongly.
MAX_ON_GREY: Final = 0.05
# A reading makes sense if it finds at least one object with half of certainty.
MIN_SENSE: Final = 0.5
# Readings that find less than this share of the best are not tried on more pictures.
WORTH_MORE: Final = 0.7
# A sum of scores from which on one picture alone can be clear.
ENOUGH: Final = 1.5
# The second best has to stay below this share of the best, or the two cannot be told apart: with
# wrong pixel values, YOLOX-nano's share is 0.80 to 0.85.
CLEAR: Final = 0.93

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Question:
    """The facts that are known before a graph is tried.

    Attributes:
        class_names: One name for each class.
        values: The pixel values to choose from.
        photos: The user's photos, (h, w, 3) uint8 BGR.
        forms: The forms of boxes to choose from.
        tolerates_grey: If every reading finds objects on plain grey, accept one all the same.
    """

    class_names: tuple[str, ...]
    values: tuple[PixelValues, ...] = USUAL_VALUES
    photos: tuple[Pixels, ...] = ()
    forms: tuple[Form, ...] = FORMS
    tolerates_grey: bool = False

    @property
    def size_of_choice(self) -> int:
        """The number of pixel values to choose from."""
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A reading, and what it finds.

    Attributes:
        values: How pixels are made.
        rows: How rows are read.
        grey: The largest joint score on grey.
        sense: The sum of what is found, by which readings are ranked; see `Found`.
        on_drawn: The part of that sum that drawn pictures have.
        on_photos: The sum of what is found on photos.
        found: The boxes on each picture.
    """

    values: PixelValues
    rows: RowReading
    grey: float
    sense: float = 0.0
    on_drawn: float = 0.0
    on_photos: float = 0.0
    found: tuple[Detections, ...] = ()

    def line(self, class_names: Sequence[str]) -> str:
        """The best finds, in words."""
        best: dict[str, float] = {}
        for objects in self.found:
            for score, number in zip(
                objects.scores.tolist(), objects.class_ids.tolist(), strict=True
            ):
                name = class_names[number]
                best[name] = max(score, best.get(name, 0.0))
        told = sorted(best.items(), key=lambda item: -item[1])[:4]
        listed = ", ".join(f"{name} {score:.2f}" for name, score in told) or "nothing"
        return f"{self.values}: {listed}; on grey at most {self.grey:.2f}"


@dataclass(slots=True)
class Trial:
    """Runs a graph on pictures, each once for each kind of pixel values.

    Attributes:
        network: The graph.
        question: The known facts, and the choices.
        progress: Told what is done.
    """

    network: TrialNetwork
    question: Question
    progress: Progress
    _outputs: dict[bytes, Outputs] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the pictures in pixels."""
        return self.network.height, self.network.width

    def run(self, picture: Pixels, values: PixelValues) -> Outputs:
        """The outputs for a picture; pixel values that make the same tensor are run once."""
        tensor = values.of(picture[np.newaxis], self.network.image)
        key = hashlib.sha256(tensor.tobytes()).digest()
        if key not in self._outputs:
            self._outputs[key] = self.network.run_tensor(tensor)
            self.progress(
                f"trying pixel values and forms of boxes at {self.size[0]}x{self.size[1]}, run "
                f"{len(self._outputs)}"
            )
        return self._outputs[key]


def choose_reading(
    network: TrialNetwork,
    arrangements: Sequence[Arrangement],
    question: Question,
    progress: Progress,
) -> Candidate:
    """Try every pixel value and every reading of the rows, and take the one that makes sense.

    Args:
        network: The graph.
        arrangements: The ways in which its outputs can hold rows.
        question: The known facts, and the choices.
        progress: Told what is done.

    Raises:
        ModelExportError: No reading makes sense, or several do; the message lists them.
    """
    trial = Trial(network, question, progress)
    first = first_pictures(trial.size, question.class_names)
    candidates = _readable(trial, arrangements, first[0])
    calm = [each for each in candidates if each.grey <= MAX_ON_GREY]
    if not calm and question.tolerates_grey:
        calm = candidates
    if not calm:
        raise ModelExportError(_on_grey(candidates, question))
    photos = photo_pictures(question.photos, trial.size)
    judged = _ranked(trial, calm, [*first, *photos])
    for change in CHANGES:
        if not _is_clear(judged):
            drawn = drawn_pictures(trial.size, question.class_names, change)
            changed = photo_pictures(question.photos, trial.size, change)
            judged = _ranked(trial, _contenders(judged), [*drawn, *changed])
    return _the_one(judged, question)


def _is_clear(judged: Sequence[Candidate]) -> bool:
    """Whether one reading finds enough, and every other one far less."""
    best, *others = judged
    return best.sense >= ENOUGH and all(each.sense < WORTH_MORE * best.sense for each in others)


def _contenders(judged: Sequence[Candidate]) -> Sequence[Candidate]:
    """Those that may still turn out best; all, as long as none finds anything."""
    best = judged[0].sense
    return [each for each in judged if each.sense >= WORTH_MORE * best]


def _readable(
    trial: Trial, arrangements: Sequence[Arrangement], picture: TrialPicture
) -> list[Candidate]:
    """Every reading that the grid and the ranges of the values allow."""
    grey = grey_picture(trial.size)
    candidates: list[Candidate] = []
    oddities = []
    for arrangement in arrangements:
        levels = level_order(trial.network, arrangement, trial.question.values[:1])
        for values in trial.question.values:
            outputs = [trial.run(image, values) for image in (picture.image, grey)]
            tables = [arrangement.table(each) for each in outputs]
            if not all(np.isfinite(table).all() for table in tables):
                continue
            oddities.append(oddity(arrangement, tables, trial.size))
            readings = row_readings(arrangement, tables, trial.size, levels, trial.question.forms)
            candidates += [
                Candidate(values, reading, largest_joint(reading, tables[1]))
                for reading in readings
            ]
    if not oddities:
        raise ModelExportError("the model gives inf or nan on plain images, whatever its pixels")
    if all(oddities):
        raise ModelExportError(f"the model is no YOLOX: {oddities[0]}")
    return candidates


def _ranked(
    trial: Trial, candidates: Sequence[Candidate], pictures: Sequence[TrialPicture]
) -> list[Candidate]:
    """The candidates with what they find, the best first; equals stay in order.

    Nobody says what is on a photo, so that photos count only if no reading finds drawn objects.
    """
    judged = [_judged(trial, candidate, pictures) for candidate in candidates]
    knows = knows_drawn(trial.question.class_names)
    if not knows or max(each.on_drawn for each in judged) < MIN_SENSE:
        judged = [replace(each, sense=each.on_drawn + each.on_photos) for each in judged]
    else:
        judged = [replace(each, sense=each.on_drawn) for each in judged]
    return sorted(judged, key=lambda candidate: -candidate.sense)


def _judged(trial: Trial, candidate: Candidate, pictures: Sequence[TrialPicture]) -> Candidate:
    expects_drawn = knows_drawn(trial.question.class_names)
    found: list[Found] = []
    for picture in pictures:
        table = candidate.rows.arrangement.table(trial.run(picture.image, candidate.values))
        found.append(find(candidate.rows, table, picture, expects_drawn=expects_drawn))
    senses: dict[bool, float] = {False: 0.0, True: 0.0}
    for picture, each in zip(pictures, found, strict=True):
        senses[picture.photo is not None] += each.sense
    return replace(
        candidate,
        on_drawn=candidate.on_drawn + senses[False],
        on_photos=candidate.on_photos + senses[True],
        found=(*candidate.found, *(each.objects for each in found)),
    )


def _the_one(judged: Sequence[Candidate], question: Question) -> Candidate:
    best, *others = judged
    if best.sense < MIN_SENSE:
        return _stated(judged, question)
    rivals = [each for each in others if each.sense > CLEAR * best.sense]
    best, *rivals = _usual_first([best, *rivals])
    apart = [each for each in rivals if not agree(each.found, best.found)]
    if apart:
        raise ModelExportError(_undecided([best, *apart], question))
    return min([best, *rivals], key=lambda each: question.values.index(each.values))


def _usual_first(rivals: Sequence[Candidate]) -> Sequence[Candidate]:
    """Those whose columns are in YOLOX's order, if there are any: another has to be better."""
    return [each for each in rivals if each.rows.order == USUAL_ORDER] or rivals


def _stated(tried: Sequence[Candidate], question: Question) -> Candidate:
    """The only reading of stated pixel values, which finds nothing but contradicts nothing."""
    usual = _usual_first(tried)
    if question.size_of_choice == 1 and len({str(each.rows) for each in usual}) == 1:
        return usual[0]
    raise ModelExportError(_nothing(tried, question))


def _on_grey(candidates: Sequence[Candidate], question: Question) -> str:
    if not candidates:
        return (
            "the model is no YOLOX: no reading puts boxes about their own cells, so they are "
            "distances or offsets from anchors, as in FCOS, NanoDet or YOLOv5"
        )
    seen = _seen(sorted(candidates, key=lambda each: each.grey), question)
    return (
        "every reading finds objects on plain grey, so none of them makes sense: "
        f"{seen}; state the pixel values with --color, --value-range, --mean and --std, or "
        "--preprocessing legacy"
    )


def _nothing(tried: Sequence[Candidate], question: Question) -> str:
    what = "the photo" if question.photos else "the drawn pictures"
    return (
        f"no reading finds anything on {what}: {_seen(tried, question)}; add --try with a photo of "
        "what the model detects, or state the pixel values: --preprocessing yolox for plain BGR of "
        "0 to 255, --preprocessing legacy, or --color, --value-range, --mean and --std"
    )


def _undecided(rivals: Sequence[Candidate], question: Question) -> str:
    return (
        f"{len(rivals)} readings make sense: {_seen(rivals, question)}; add --try with another "
        "photo of what the model detects, or state the pixel values: --preprocessing yolox for "
        "plain BGR of 0 to 255, --preprocessing legacy, or --color, --value-range, --mean and --std"
    )


def _seen(candidates: Sequence[Candidate], question: Question) -> str:
    kinds = {str(each.rows) for each in candidates}
    lines = [
        each.line(question.class_names) + (f" ({each.rows})" if len(kinds) > 1 else "")
        for each in candidates[:6]
    ]
    return " | ".join(lines)
