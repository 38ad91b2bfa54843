"""Pictures of one data set that are in another one too, perhaps in other sizes or compressions."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_export.data.checked_images import CheckedImages
from model_export.data.thumbnails import SIDE

# Bits of the 64 that two hashes may differ in.
MAX_BITS: Final = 6
# Mean difference of two thumbnails in grey levels, once their own means are taken off.
MAX_DIFFERENCE: Final = 4.0
# Comparing 80,000 hashes with 20,000 took 9 s; beyond this many pairs, only equal hashes count.
MAX_PAIRS: Final = 4_000_000_000
# Pairs that are compared at once: 80 MB.
CHUNK_PAIRS: Final = 10_000_000


class Duplicate(NamedTuple):
    """Two images that look the same: their numbers in the two data sets."""

    first: int
    second: int


def near_duplicates(first: CheckedImages, second: CheckedImages) -> list[Duplicate]:
    """Images of the second data set that look like one of the first; at most one pair for each.

    An average hash of 64 bits finds candidates, and thumbnails of 16 x 16 pixels confirm them. A
    picture that was turned, mirrored or cropped is not found.
    """
    ours, theirs = _hashes(first.thumbnails), _hashes(second.thumbnails)
    max_bits = MAX_BITS if len(ours) * len(theirs) <= MAX_PAIRS else 0
    found = []
    step = max(1, CHUNK_PAIRS // max(1, len(ours)))
    for start in range(0, len(theirs), step):
        bits = np.bitwise_count(theirs[start : start + step, None] ^ ours[None])
        for offset in np.flatnonzero((bits <= max_bits).any(axis=1)).tolist():
            candidates = np.flatnonzero(bits[offset] <= max_bits)
            number = start + offset
            difference = _difference(first.thumbnails[candidates], second.thumbnails[number])
            if difference.min() <= MAX_DIFFERENCE:
                found.append(Duplicate(int(candidates[difference.argmin()]), number))
    return found


def _hashes(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(N,) hashes of (N, SIDE, SIDE): which of 8 x 8 blocks are brighter than their median."""
    half = SIDE // 2
    blocks = thumbnails.reshape(-1, half, 2, half, 2).mean(axis=(2, 4)).reshape(-1, half * half)
    bright = blocks > np.median(blocks, axis=1, keepdims=True)
    return np.packbits(bright, axis=1).view(np.uint64)[:, 0]


def _difference(many: NDArray[np.uint8], one: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(K,) mean differences of (K, SIDE, SIDE) thumbnails from one, whatever their brightness."""
    centred = many - many.mean(axis=(1, 2), keepdims=True)
    return np.asarray(np.abs(centred - (one - one.mean())).mean(axis=(1, 2)))
