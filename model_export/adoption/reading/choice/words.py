"""Notes and refusals about readings, for the user."""

from collections.abc import Sequence

from model_export.adoption.reading.choice.candidate import Candidate, Question
from model_export.adoption.reading.evidence import difference
from model_export.adoption.reading.pictures import knows_drawn


def doubt(rival: Candidate, one: Candidate) -> str:
    """A note on a reading that fits about as well as the chosen one, and on what it changes."""
    kept, total, apart = difference(rival.found, one.found)
    return (
        f"{rival.values} would fit about as well: on {len(one.found)} pictures it finds {kept} of "
        f"the {total} boxes that {one.values} finds, with scores that differ by up to {apart:.2f}; "
        "if the model was trained with those, say so with --color, --value-range, --mean and --std"
    )


def on_grey(candidates: Sequence[Candidate], question: Question) -> str:
    """Every reading finds objects on plain grey, or none has boxes at all."""
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


def left_out(step: str) -> str:
    """A step of decoding is missing from the graph."""
    return f"the export leaves out {step}; export the model with that step, or with raw rows"


def beside(right: float, below: float) -> str:
    """Boxes that lie beside the drawn objects."""
    across = f"{abs(right):.2f} cells to the {'right' if right > 0 else 'left'}"
    down = f"{abs(below):.2f} {'downwards' if below > 0 else 'upwards'}"
    return (
        f"its boxes lie beside the drawn objects, by {across} and {down}, so its centres do not "
        "count from the corner of the cell, as YOLOX's do; export the model with decoded boxes, or "
        "with raw rows as YOLOX has them"
    )


def nothing(tried: Sequence[Candidate], question: Question) -> str:
    """No reading finds anything, or nothing in its place."""
    seen = _seen(tried, question)
    state = (
        "state the pixel values: --preprocessing yolox for plain BGR of 0 to 255, --preprocessing "
        "legacy, or --color, --value-range, --mean and --std"
    )
    if not knows_drawn(question.class_names):
        what = "the photo" if question.photos else "the drawn pictures"
        return (
            f"no reading finds anything on {what}: {seen}; add --try with a photo of what the "
            f"model detects, or {state}"
        )
    other = f"; {state}" if question.size_of_choice > 1 else ""
    return (
        f"no reading finds the drawn objects of its classes in their places: {seen}. The rows may "
        "be in an order or a coding that is not known here, or the model is hardly trained"
        f"{other}; --force adopts it all the same"
    )


def unproven() -> str:
    """A note on a model that found nothing, read as the user says."""
    return (
        "it found nothing on any picture, so nothing proves that its rows are read rightly; adopt "
        "it again with --try and a photo of what it detects"
    )


def undecided(rivals: Sequence[Candidate], question: Question) -> str:
    """Several readings make sense."""
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
