"""Scenes by number, as a training takes them: without end, and the same in every process."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from model_export.data.image_cache import ImageCache
from model_export.drawing.barcodes.scene import draw_scene
from model_export.drawing.barcodes.symbols import CLASS_NAMES
from model_export.samples.geometry import Picture

# Keeps what is trained on apart from the files of `demo-data` with the same seed.
TRAINING_STREAM: Final = 0xBA


@dataclass(frozen=True, slots=True)
class BarcodeScenes:
    """Pictures of barcodes to train on; every epoch has other ones.

    Attributes:
        count: How many make an epoch.
        seed: The run's seed.
        epoch: Which of them, from 0.
    """

    count: int
    seed: int
    epoch: int = 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class id to name."""
        return CLASS_NAMES

    @property
    def labelled(self) -> Sequence[int]:
        """None: which pictures have boxes is not known before they are drawn."""
        return ()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Picture:
        """Draw picture number `index` of the epoch."""
        number = self.epoch * self.count + index
        return draw_scene(np.random.default_rng((self.seed, TRAINING_STREAM, number)))

    def at_epoch(self, epoch: int) -> "BarcodeScenes":
        """The pictures of another epoch."""
        return replace(self, epoch=epoch)

    def pictures(self, _cache: ImageCache | None) -> "BarcodeScenes":
        """These pictures; there is nothing to decode."""
        return self

    def report(self) -> list[str]:
        """The content of the data set, in a line for a person."""
        return [f"{self.count} pictures of barcodes drawn for each epoch"]
