"""Numbered scenes for training: an unlimited number, and the same ones in every process."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from model_export.data.image_cache import ImageCache
from model_export.drawing.barcodes.scene import draw_scene
from model_export.drawing.barcodes.symbols import CLASS_NAMES
from model_export.samples.geometry import Picture

# Part of the seed, so that training scenes differ from those of `demo-data` with the same seed.
TRAINING_STREAM: Final = 0xBA


@dataclass(frozen=True, slots=True)
class BarcodeScenes:
    """Pictures of barcodes to train on; every epoch has different ones.

    Attributes:
        count: Number of pictures in an epoch.
        seed: The run's seed.
        epoch: The epoch, counted from 0.
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
        """Empty: which pictures have boxes is not known before they are drawn."""
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
        """One line that describes the data set to the user."""
        return [f"{self.count} pictures of barcodes drawn for each epoch"]
