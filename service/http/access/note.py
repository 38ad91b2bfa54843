"""The note of a request: facts for its line in the access log that only its route knows."""

from typing import Final

NOTE: Final = "yolox-serve.note"

# Facts that a route notes about its request: `bytes` (of the body, as far as it was read), `images`
# (their number), `detections` (the boxes of the answer), `model` and `problem`. They hold no text
# of a client's.
Note = dict[str, int | str]
