"""The note of a request: facts for its line in the access log that only its route knows."""

from typing import Final

MAX_MODEL_LENGTH: Final = 100
NOTE: Final = "yolox-serve.note"

# Facts that a route notes about its request: `bytes` (of the body, as far as it was read), `images`
# (their number), `detections` (the boxes of the answer), `model` and `problem`. They hold no text
# of a client's.
Note = dict[str, int | str]


def model_label(name: str, version: str) -> str:
    """A model as log lines name it: bounded, and harmless on a terminal."""
    label = f"{name}@{version}"
    return "".join(letter if letter.isprintable() else "?" for letter in label)[:MAX_MODEL_LENGTH]
