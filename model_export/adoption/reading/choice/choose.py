"""Choose the one reading of a graph that makes sense, or say what each of them finds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from model_export.adoption.reading.choice.candidate import Candidate, Progress, Question
from model_export.adoption.reading.choice.missing_step import missing_step
from model_export.adoption.reading.choice.pixel_choices import (
    RARE_VALUES,
    are_kin,
    of_scale,
)
from model_export.adoption.reading.choice.words import (
    beside,
    doubt,
    left_out,
    nothing,
    on_grey,
    undecided,
    unproven,
)
from model_export.adoption.reading.drawn import Pixels
from model_export.adoption.reading.evidence import (
    Found,
    agree,
    find,
    largest_joint,
    shift_in_cells,
)
from model_export.adoption.reading.level_order import level_order
from model_export.adoption.reading.oddities import oddity
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
    USUAL_ORDER,
    row_readings,
)
from model_export.adoption.reading.tables import Arrangement
from model_export.adoption.reading.trial_network import Outputs, TrialNetwork
from model_export.errors import ModelExportError
from model_export.graphs.pixel_values import PixelValues

# The largest joint score on grey: 0.00 for ten good models of eight origins, and above this for
# ten of eleven that were read wrongly.
MAX_ON_GREY: Final = 0.05
# A reading makes sense if it finds at least one object with half of certainty.
MIN_SENSE: Final = 0.5
# Readings that find less than this share of the best are not tried on more pictures.
WORTH_MORE: Final = 0.7
# The same once they have been tried on dark pictures too: the right one finds most there.
STILL_WORTH_MORE: Final = 0.95
# A sum of scores from which on one picture alone can be clear.
ENOUGH: Final = 1.5
# The second best has to stay below this share of the best, or the two cannot be told apart: with
# wrong pixel values, YOLOX-nano's share is 0.80 to 0.85.
CLEAR: Final = 0.93
# Cells by which boxes may lie beside drawn objects: YOLOX-nano's do by 0.05, and by 0.5 where its
# centres are counted from the middle of the cell.
MAX_SHIFT: Final = 0.3
# Sums nearer than this say nothing.
AS_GOOD: Final = 0.98


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

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the pictures in pixels."""
        return self.network.height, self.network.width

    def run(self, picture: Pixels, values: PixelValues) -> Outputs:
        """The outputs for a picture; pixel values that make the same tensor are run once."""
        before = self.network.runs
        outputs = self.network.run(picture, values)
        if self.network.runs > before:
            self.progress(
                f"trying pixel values and forms of boxes at {self.size[0]}x{self.size[1]}, run "
                f"{self.network.runs}"
            )
        return outputs


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
        ModelExportError: No reading makes sense, or several do. The message lists them, or names
            the step of decoding that the graph leaves out.
    """
    try:
        chosen = _chosen(network, arrangements, question, progress)
    except ModelExportError as refusal:
        step = missing_step(network, arrangements, question)
        if step is None:
            raise
        raise ModelExportError(left_out(step)) from refusal
    if not question.tolerates_grey:
        _check_places(network, chosen, question)
    return chosen


def _check_places(network: TrialNetwork, chosen: Candidate, question: Question) -> None:
    """Refuse a reading whose boxes overlap the drawn objects, but lie beside them.

    Raises:
        ModelExportError: They are off by a part of a cell in both directions.
    """
    picture, *_ = first_pictures((network.height, network.width), question.class_names)
    table = chosen.rows.arrangement.table(network.run(picture.image, chosen.values))
    shift = shift_in_cells(chosen.rows, table, picture)
    if shift is not None and (np.abs(shift) > MAX_SHIFT).all():
        raise ModelExportError(beside(float(shift[0]), float(shift[1])))


def _chosen(
    network: TrialNetwork,
    arrangements: Sequence[Arrangement],
    question: Question,
    progress: Progress,
) -> Candidate:
    trial = Trial(network, question, progress)
    first = first_pictures(trial.size, question.class_names)
    pictures = [*first, *photo_pictures(question.photos, trial.size)]
    usual = _readable(trial, arrangements, first[0])
    judged = [_judged(trial, each, pictures) for each in _calm(usual, question)]
    judged = _by_sense([*judged, *_rare(trial, judged or usual, pictures)], question)
    if not judged:
        raise ModelExportError(on_grey(usual, question))
    share = WORTH_MORE
    for change in CHANGES:
        judged = [each for each in judged if each.sense >= share * judged[0].sense]
        if len(judged) == 1 and judged[0].sense >= ENOUGH:
            break
        drawn = drawn_pictures(trial.size, question.class_names, change)
        changed = photo_pictures(question.photos, trial.size, change)
        judged = [_judged(trial, each, [*drawn, *changed]) for each in judged]
        judged = _by_sense(judged, question)
        share = STILL_WORTH_MORE
    return _the_one(judged, question)


def _calm(candidates: Sequence[Candidate], question: Question) -> Sequence[Candidate]:
    """Those that find nothing on grey; if there are none, all, where the user accepts that."""
    calm = [each for each in candidates if each.grey <= MAX_ON_GREY]
    return calm or (candidates if question.tolerates_grey else ())


def _rare(
    trial: Trial, tried: Sequence[Candidate], pictures: Sequence[TrialPicture]
) -> list[Candidate]:
    """Rare pixel values, with the rows of the usual ones that find most, and what they find."""
    if not trial.question.tries_rare or not tried:
        return []
    best, *_ = ranked = _by_sense(tried, trial.question)
    rows = dict.fromkeys(each.rows for each in ranked if each.sense >= WORTH_MORE * best.sense)
    judged = [
        _judged(trial, Candidate(values, each, 0.0), pictures)
        for values in of_scale(best.values)
        for each in rows
    ]
    worthy = [each for each in _by_sense(judged, trial.question) if each.sense >= MIN_SENSE]
    worthy = [each for each in worthy if each.sense >= WORTH_MORE * best.sense]
    grey = grey_picture(trial.size)
    tables = [each.rows.arrangement.table(trial.run(grey, each.values)) for each in worthy]
    told = [
        replace(each, grey=largest_joint(each.rows, table))
        for each, table in zip(worthy, tables, strict=True)
    ]
    return [each for each in told if each.grey <= MAX_ON_GREY]


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


def _by_sense(judged: Sequence[Candidate], question: Question) -> list[Candidate]:
    """The candidates with the sum that ranks them, the best first; equals stay in order.

    Nobody says what is on a photo, and boxes in wrong places look like boxes too. So photos count
    for models of other classes, and where the user accepts a model that finds no drawn object.
    """
    drawn = max((each.on_drawn for each in judged), default=0.0)
    forced = question.tolerates_grey and drawn < MIN_SENSE
    if forced or not knows_drawn(question.class_names):
        ranked = [replace(each, sense=each.on_drawn + each.on_photos) for each in judged]
    else:
        ranked = [replace(each, sense=each.on_drawn) for each in judged]
    return sorted(ranked, key=lambda candidate: -candidate.sense)


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
    best, *_ = judged
    if best.sense < MIN_SENSE:
        return _stated(judged, question)
    best, *rivals = _usual_first([each for each in judged if each.sense > CLEAR * best.sense])
    best = _likeliest(best, rivals, question)
    rivals = [each for each in (best, *rivals) if each is not best]
    alike = [each for each in rivals if agree(each.found, best.found)]
    apart = [each for each in rivals if each not in alike and not _is_doubt(each, best, question)]
    if apart:
        raise ModelExportError(undecided([best, *apart], question))
    one = min([best, *alike], key=lambda each: _place(each, question))
    doubts = [each for each in rivals if each is not one and each.rows == one.rows]
    return replace(one, doubts=tuple(doubt(each, one) for each in doubts))


def _likeliest(best: Candidate, rivals: Sequence[Candidate], question: Question) -> Candidate:
    """The best with usual pixel values, or else the most common of the rare ones that are alike."""
    usual = [each for each in (best, *rivals) if each.values in question.values]
    if usual:
        return usual[0]
    near = [each for each in rivals if each.sense > AS_GOOD * best.sense]
    kin = [each for each in near if are_kin(each.values, best.values) and each.rows == best.rows]
    return min([best, *kin], key=lambda each: _place(each, question))


def _place(candidate: Candidate, question: Question) -> int:
    """The place of a reading among those that find about the same: the usual values first."""
    return [*question.values, *RARE_VALUES].index(candidate.values)


def _is_doubt(rival: Candidate, best: Candidate, question: Question) -> bool:
    """Whether a rival is no reason to refuse: it differs by a shade, or it alone is rare."""
    alone_rare = best.values in question.values and rival.values not in question.values
    return rival.rows == best.rows and (alone_rare or are_kin(rival.values, best.values))


def _usual_first(rivals: Sequence[Candidate]) -> Sequence[Candidate]:
    """Those whose columns are in YOLOX's order, if there are any: another has to be better."""
    return [each for each in rivals if each.rows.order == USUAL_ORDER] or rivals


def _stated(tried: Sequence[Candidate], question: Question) -> Candidate:
    """The only reading of stated pixel values, which finds nothing but contradicts nothing."""
    usual = _usual_first(tried)
    if knows_drawn(question.class_names) and not question.tolerates_grey:
        raise ModelExportError(nothing(usual, question))
    if question.size_of_choice == 1 and len({str(each.rows) for each in usual}) == 1:
        return replace(usual[0], doubts=(unproven(),))
    raise ModelExportError(nothing(tried, question))
