"""The pictures that a model is tried on, letterboxed into its input."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from model_export.adoption.reading.drawn import OBJECTS, TILE, DrawnObject, Pixels
from service.core.contract import InputSpec, ModelContract
from service.core.letterbox import Letterbox, fit_to_model

# A letterbox's own grey.
GREY: Final = 114
# Objects of each scene, two by two. The first scene has those that models find best.
SCENES: Final = ((0, 4, 1, 6), (2, 3, 5, 7), (8, 4, 0, 3))
SIDE: Final = 2 * TILE
# Share of a scene that a shrunk one fills.
SHRUNK: Final = 0.72
NOISE: Final = 14.0
DARKENED: Final = 0.4

Boxes = NDArray[np.float32]
# The first tells most: what is wrong about brightness or contrast shows where there is little.
Change = Literal["dark", "none", "noise", "small"]
CHANGES: Final[tuple[Change, ...]] = get_args(Change)


@dataclass(frozen=True, slots=True)
class TrialPicture:
    """A picture that fills a network's input.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        boxes_xyxy: (K, 4) float32: the drawn objects' boxes, network pixels.
        class_ids: The class of each.
        photo: The user's photo that it shows, and its place; None for drawn pictures.
    """

    image: Pixels
    boxes_xyxy: Boxes
    class_ids: tuple[int, ...]
    photo: tuple[Pixels, Letterbox] | None = None


@dataclass(frozen=True, slots=True)
class _Scene:
    """Four objects in a square, or the same changed in light or scale."""

    image: Pixels
    boxes_xyxy: Boxes
    class_ids: tuple[int, ...]


def grey_picture(size: tuple[int, int]) -> Pixels:
    """(H, W, 3) uint8: nothing but the grey of letterboxes."""
    return np.full((*size, 3), GREY, np.uint8)


def first_pictures(size: tuple[int, int], class_names: Sequence[str]) -> list[TrialPicture]:
    """One picture, with the objects that are found best."""
    return _canvases([_scene(SCENES[0], tuple(class_names))], size)


def drawn_pictures(
    size: tuple[int, int], class_names: Sequence[str], change: Change
) -> list[TrialPicture]:
    """More drawn pictures.

    Args:
        size: (height, width) of the network's input in pixels.
        class_names: The model's classes; objects of no such class have no box.
        change: The change to each scene; `none` leaves out the scene of the first picture.
    """
    scenes = SCENES[1:] if change == "none" else SCENES
    names = tuple(class_names)
    return _canvases([_changed(_scene(each, names), change) for each in scenes], size)


def photo_pictures(
    photos: Sequence[Pixels], size: tuple[int, int], change: Change | None = None
) -> list[TrialPicture]:
    """Photos as the server letterboxes them, or changed; `none` mirrors them."""
    pictures = []
    for photo in photos:
        shown = photo
        if change is not None:
            mirrored = np.ascontiguousarray(photo[:, ::-1])
            scene = _Scene(mirrored, np.zeros((0, 4), np.float32), ())
            shown = _changed(scene, change).image
        pictures.append(_letterboxed(shown, size))
    return pictures


def knows_drawn(class_names: Sequence[str]) -> bool:
    """Whether any drawn object is of one of these classes."""
    return any(_scene(numbers, tuple(class_names)).class_ids for numbers in SCENES)


def _letterboxed(photo: Pixels, size: tuple[int, int]) -> TrialPicture:
    spec = InputSpec("images", *size)
    contract = ModelContract("trial", "1", spec, ("any",), strides=(1,))
    image, letterbox = fit_to_model(photo, contract, "square")
    return TrialPicture(image, np.zeros((0, 4), np.float32), (), (photo, letterbox))


@lru_cache(maxsize=16)
def _scene(numbers: tuple[int, ...], class_names: tuple[str, ...]) -> _Scene:
    image = np.full((SIDE, SIDE, 3), GREY, np.uint8)
    boxes, classes = [], []
    lookup = {name.lower().replace("_", " "): place for place, name in enumerate(class_names)}
    for place, number in enumerate(numbers):
        top, left = (TILE * part for part in divmod(place, 2))
        drawn = OBJECTS[number]
        image[top : top + TILE, left : left + TILE] = drawn.picture()
        class_id = _class_of(drawn, lookup)
        if class_id is not None:
            boxes.append(np.add(drawn.box_xyxy, (left, top, left, top)))
            classes.append(class_id)
    return _Scene(image, np.array(boxes, np.float32).reshape(-1, 4), tuple(classes))


def _class_of(drawn: DrawnObject, lookup: dict[str, int]) -> int | None:
    known = [lookup[name] for name in drawn.names if name in lookup]
    return known[0] if known else None


def _changed(scene: _Scene, change: Change) -> _Scene:
    if change == "noise":
        return _noisy(scene)
    if change == "dark":
        return _with_image(scene, scene.image * DARKENED)
    return _shrunk(scene) if change == "small" else scene


def _noisy(scene: _Scene) -> _Scene:
    noise = np.random.default_rng(0).normal(0, NOISE, scene.image.shape)
    return _with_image(scene, np.clip(scene.image + noise, 0, 255))


def _with_image(scene: _Scene, image: NDArray[np.generic]) -> _Scene:
    return _Scene(image.astype(np.uint8), scene.boxes_xyxy, scene.class_ids)


def _shrunk(scene: _Scene) -> _Scene:
    """The scene smaller, with its own mirror image around it."""
    height, width = scene.image.shape[:2]
    small_height, small_width = (max(1, round(side * SHRUNK)) for side in (height, width))
    small = cv2.resize(scene.image, (small_width, small_height), interpolation=cv2.INTER_AREA)
    top, left = (height - small_height) // 2, (width - small_width) // 2
    rest = (height - small_height - top, width - small_width - left)
    image = cv2.copyMakeBorder(small, top, rest[0], left, rest[1], cv2.BORDER_REFLECT)
    corner = np.array([left, top, left, top], np.float32)
    boxes = scene.boxes_xyxy * np.float32(SHRUNK) + corner
    return _Scene(np.asarray(image, np.uint8), boxes, scene.class_ids)


def _canvases(scenes: Sequence[_Scene], size: tuple[int, int]) -> list[TrialPicture]:
    """Lay scenes out in pictures of the network's size, as many in each as keep their size."""
    height, width = size
    down, across = max(1, height // SIDE), max(1, width // SIDE)
    side = min(height // down, width // across)
    places = down * across
    starts = range(0, len(scenes), places)
    return [_canvas(scenes[start : start + places], size, across, side) for start in starts]


def _canvas(
    scenes: Sequence[_Scene], size: tuple[int, int], across: int, side: int
) -> TrialPicture:
    image, boxes = grey_picture(size), [np.zeros((0, 4), np.float32)]
    classes: list[int] = []
    for place, scene in enumerate(scenes):
        top, left = (side * part for part in divmod(place, across))
        shown = cv2.resize(scene.image, (side, side), interpolation=cv2.INTER_AREA)
        image[top : top + side, left : left + side] = shown
        corner = np.array([left, top, left, top], np.float32)
        boxes.append(scene.boxes_xyxy * np.float32(side / SIDE) + corner)
        classes += scene.class_ids
    return TrialPicture(image, np.concatenate(boxes), tuple(classes))
