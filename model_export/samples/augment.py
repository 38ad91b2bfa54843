"""One training sample: which pictures it is made of, how they are moved, and how coloured."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from model_export.samples.batch_plan import SampleSpec
from model_export.samples.color import jitter_hsv
from model_export.samples.geometry import Picture, flip, in_view, scaling
from model_export.samples.mosaic import mix_up, mosaic, moved
from model_export.samples.settings import Augmentation
from service.core.letterbox import letterbox


class PictureSource(Protocol):
    """Pictures by number, each made when it is asked for."""

    @property
    def labelled(self) -> Sequence[int]:
        """The numbers of the pictures with at least one box."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Picture: ...

    def at_epoch(self, epoch: int) -> "PictureSource":
        """The pictures of one pass over the data, from 0; files do not change between passes."""


def augment(source: PictureSource, spec: SampleSpec, settings: Augmentation, seed: int) -> Picture:
    """Make one sample.

    Args:
        source: The pictures of the data set.
        spec: Which sample to make.
        settings: How much samples vary.
        seed: The run's seed; with `spec` it decides every random choice.

    Returns:
        A picture of the height and width in `spec`, its boxes in pixels of it.
    """
    rng = spec.generator(seed)
    if spec.closing:
        return _letterboxed(source[spec.index], spec, settings, rng)
    if _happens(settings.mosaic_probability, rng):
        return _finished(_composed(source, spec, settings, rng), settings, rng)
    picture = source[spec.index]
    if _happens(settings.affine_probability, rng):
        picture = moved(picture, spec.height, spec.width, settings, rng)
        return _finished(picture, settings, rng)
    return _letterboxed(picture, spec, settings, rng)


def _composed(
    source: PictureSource, spec: SampleSpec, settings: Augmentation, rng: np.random.Generator
) -> Picture:
    """A mosaic, perhaps with one more picture blended in."""
    indices = [spec.index, *rng.integers(len(source), size=3).tolist()]
    rng.shuffle(indices)
    pictures = [source[index] for index in indices]
    picture = mosaic(pictures, spec.height, spec.width, settings, rng)
    labelled = source.labelled
    if len(labelled) == 0 or not _happens(settings.mixup_probability, rng):
        return picture
    second = source[labelled[int(rng.integers(len(labelled)))]]
    return mix_up(picture, _maybe_flipped(second, settings, rng), settings, rng)


def _letterboxed(
    picture: Picture, spec: SampleSpec, settings: Augmentation, rng: np.random.Generator
) -> Picture:
    """One picture as the server would see it, perhaps flipped and in other colours."""
    # Before the letterbox, so that the padding stays at the right and the bottom.
    picture = _maybe_flipped(picture, settings, rng)
    canvas, way_back = letterbox(picture.image, spec.height, spec.width)
    if _happens(settings.hsv_probability, rng):
        height = max(1, int(way_back.image_height * way_back.ratio))
        width = max(1, int(way_back.image_width * way_back.ratio))
        # Only the picture, because the server pads with one value.
        canvas[:height, :width] = jitter_hsv(canvas[:height, :width], settings, rng)
    return in_view(canvas, picture, scaling(way_back.ratio), settings)


def _finished(picture: Picture, settings: Augmentation, rng: np.random.Generator) -> Picture:
    """The last changes of a sample that was moved: a flip and other colours."""
    picture = _maybe_flipped(picture, settings, rng)
    if not _happens(settings.hsv_probability, rng):
        return picture
    image = jitter_hsv(picture.image, settings, rng)
    return Picture(image, picture.boxes_xyxy, picture.class_ids)


def _maybe_flipped(picture: Picture, settings: Augmentation, rng: np.random.Generator) -> Picture:
    if _happens(settings.flip_probability, rng):
        picture = flip(picture)
    # Without a draw where there is none, so that a seed gives the samples that it always gave.
    if settings.vertical_flip_probability and _happens(settings.vertical_flip_probability, rng):
        picture = flip(picture, vertically=True)
    return picture


def _happens(probability: float, rng: np.random.Generator) -> bool:
    return rng.random() < probability
