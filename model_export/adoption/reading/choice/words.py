"""Notes and refusals about readings, for the user."""

from collections.abc import Sequence

from model_export.adoption.reading.choice.candidate import Candidate, Question
from model_export.adoption.reading.evidence import difference


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


def nothing(tried: Sequence[Candidate], question: Question) -> str:
    """No reading finds anything."""
    what = "the photo" if question.photos else "the drawn pictures"
    return (
        f"no reading finds anything on {what}: {_seen(tried, question)}; add --try with a photo of "
        "what the model detects, or state the pixel values: --preprocessing yolox for plain BGR of "
        "0 to 255, --preprocessing legacy, or --color, --value-range, --mean and --std"
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
