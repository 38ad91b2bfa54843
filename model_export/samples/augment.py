"""One training sample: which pictures, moved and coloured how (detector.md, section 6)."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from model_export.samples.color import jitter_hsv
from model_export.samples.geometry import Picture, flip, in_view, scaling
from model_export.samples.mosaic import mix_up, mosaic, moved
from model_export.samples.recipe import Augmentation, Recipe
from service.core.letterbox import letterbox


class PictureSource(Protocol):
    """Numbered pictures, read when they are asked for."""

    @property
    def labelled(self) -> Sequence[int]:
        """The numbers of the pictures with at least one box."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Picture: ...

    def at_epoch(self, epoch: int) -> "PictureSource":
        """The pictures of one pass over the data, from 0; files are the same in each."""


def augment(source: PictureSource, recipe: Recipe, settings: Augmentation, seed: int) -> Picture:
    """Make the sample that a recipe names.

    Args:
        source: The pictures of the data set.
        recipe: Which sample.
        settings: How much samples vary.
        seed: The run's seed; with the recipe it decides every draw.

    Returns:
        A picture of the recipe's height and width, its boxes in pixels of it.
    """
    rng = recipe.generator(seed)
    if recipe.closing:
        return _letterboxed(source[recipe.index], recipe, settings, rng)
    if _happens(settings.mosaic_probability, rng):
        return _finished(_composed(source, recipe, settings, rng), settings, rng)
    picture = source[recipe.index]
    if _happens(settings.affine_probability, rng):
        picture = moved(picture, recipe.height, recipe.width, settings, rng)
        return _finished(picture, settings, rng)
    return _letterboxed(picture, recipe, settings, rng)


def _composed(
    source: PictureSource, recipe: Recipe, settings: Augmentation, rng: np.random.Generator
) -> Picture:
    """A mosaic, and perhaps one more picture blended in."""
    indices = [recipe.index, *rng.integers(len(source), size=3).tolist()]
    rng.shuffle(indices)
    pictures = [source[index] for index in indices]
    picture = mosaic(pictures, recipe.height, recipe.width, settings, rng)
    labelled = source.labelled
    if len(labelled) == 0 or not _happens(settings.mixup_probability, rng):
        return picture
    second = source[labelled[int(rng.integers(len(labelled)))]]
    return mix_up(picture, _maybe_flipped(second, settings, rng), settings, rng)


def _letterboxed(
    picture: Picture, recipe: Recipe, settings: Augmentation, rng: np.random.Generator
) -> Picture:
    """One picture as the server would see it, but for its colours and sides."""
    # Before the letterbox, which puts the picture top left.
    picture = _maybe_flipped(picture, settings, rng)
    canvas, way_back = letterbox(picture.image, recipe.height, recipe.width)
    if _happens(settings.hsv_probability, rng):
        height = max(1, int(way_back.image_height * way_back.ratio))
        width = max(1, int(way_back.image_width * way_back.ratio))
        # The padding keeps the one value that the server pads with.
        canvas[:height, :width] = jitter_hsv(canvas[:height, :width], settings, rng)
    return in_view(canvas, picture, scaling(way_back.ratio), settings)


def _finished(picture: Picture, settings: Augmentation, rng: np.random.Generator) -> Picture:
    """What every moved sample may get last."""
    picture = _maybe_flipped(picture, settings, rng)
    if not _happens(settings.hsv_probability, rng):
        return picture
    image = jitter_hsv(picture.image, settings, rng)
    return Picture(image, picture.boxes_xyxy, picture.class_ids)


def _maybe_flipped(picture: Picture, settings: Augmentation, rng: np.random.Generator) -> Picture:
    return flip(picture) if _happens(settings.flip_probability, rng) else picture


def _happens(probability: float, rng: np.random.Generator) -> bool:
    return rng.random() < probability
