"""Boxes follow the pixels, whatever is done to a picture.

Boxes are drawn white on black, the picture is changed, and what is then white is measured. Edges
may differ by `TOLERANCE`: whole pixels are compared with fractions of them, and the tip of a turned
corner can fall between pixels. Where the view cuts off a turned box, the tip may be thinner than a
pixel for a longer way: `TIP_TOLERANCE`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_export.errors import ModelExportError
from model_export.model.variants import Variant
from model_export.samples.augment import augment
from model_export.samples.batch_plan import SampleSpec, smallest_training_size, training_size
from model_export.samples.color import jitter_hsv
from model_export.samples.geometry import (
    Picture,
    blank,
    flip,
    in_view,
    paint,
    random_affine,
    scaling,
    translation,
)
from model_export.samples.mosaic import mix_up, mosaic, moved
from model_export.samples.settings import Augmentation, augmentation_for
from service.core.letterbox import letterbox

TOLERANCE = 1.25
TIP_TOLERANCE = 5.0
HEIGHT, WIDTH = 160, 192
VARIED = Augmentation(
    scale=(0.5, 1.5), min_side=4, min_visible=0.1, hsv_probability=0, mixup_probability=0
)


@dataclass(frozen=True)
class Pictures:
    """A source of pictures that are all there."""

    pictures: Sequence[Picture]

    @property
    def labelled(self) -> Sequence[int]:
        return [i for i, picture in enumerate(self.pictures) if len(picture.boxes_xyxy)]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Picture:
        return self.pictures[index]


def black(height: int, width: int) -> Picture:
    image = np.zeros((height, width, 3), np.uint8)
    return Picture(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))


def drawn(height: int, width: int, box: tuple[int, int, int, int], class_id: int = 7) -> Picture:
    """One white box on black."""
    image = np.zeros((height, width, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return Picture(image, np.array([box], np.float32), np.array([class_id]))


def drawn_at_random(rng: np.random.Generator) -> Picture:
    height, width = rng.integers(100, 300, size=2).tolist()
    x, y = int(rng.integers(width - 30)), int(rng.integers(height - 30))
    right, bottom = rng.integers((x + 20, y + 20), (width + 1, height + 1)).tolist()
    return drawn(height, width, (x, y, right, bottom))


def extent(image: NDArray[np.uint8], threshold: int = 128) -> NDArray[np.int64]:
    """The edges of what is white: brighter than padding, which is 114."""
    rows, columns = np.nonzero(image.min(axis=2) > threshold)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def assert_the_box_is_where_it_is_drawn(picture: Picture, threshold: int = 128) -> None:
    height, width = picture.image.shape[:2]
    measured = extent(picture.image, threshold)
    is_cut = (measured[:2] == 0).any() or (measured[2:] == [width, height]).any()
    difference = np.abs(picture.boxes_xyxy - measured)
    assert (difference <= (TIP_TOLERANCE if is_cut else TOLERANCE)).all()
    assert picture.class_ids.tolist() == [7]
    assert picture.boxes_xyxy.dtype == np.float32
    assert picture.class_ids.dtype == np.int64


def compare_many(make: Callable[[np.random.Generator], Picture], threshold: int = 128) -> None:
    """Compare 150 random pictures, many of which must have their box in view."""
    compared = 0
    for seed in range(150):
        picture = make(np.random.default_rng(seed))
        if len(picture.boxes_xyxy):
            assert_the_box_is_where_it_is_drawn(picture, threshold)
            compared += 1
    assert compared > 60


def assert_sound(picture: Picture, min_side: float) -> None:
    height, width = picture.image.shape[:2]
    boxes = picture.boxes_xyxy
    assert boxes.shape == (len(picture.class_ids), 4)
    assert (boxes >= 0).all()
    assert (boxes <= [width, height, width, height]).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= min_side).all()


@pytest.mark.parametrize("mirror", [flip, partial(flip, vertically=True)])
def test_boxes_follow_a_flip(mirror: Callable[[Picture], Picture]) -> None:
    def make(rng: np.random.Generator) -> Picture:
        return mirror(drawn_at_random(rng))

    compare_many(make)


@pytest.mark.parametrize("closing", [False, True])
def test_samples_are_mirrored_top_to_bottom(closing: bool) -> None:
    still = Augmentation(mosaic_probability=0, flip_probability=0, hsv_probability=0)
    source = Pictures([drawn(64, 96, (3, 5, 30, 20))])
    spec = SampleSpec(0, 0, 64, 96, closing=closing)
    upright = augment(source, spec, still, 0)
    mirrored = augment(source, spec, replace(still, vertical_flip_probability=1.0), 0)
    assert upright.boxes_xyxy.tolist() == [[3, 5, 30, 20]]
    assert mirrored.boxes_xyxy.tolist() == [[3, 64 - 20, 30, 64 - 5]]
    np.testing.assert_array_equal(mirrored.image, upright.image[::-1])


@pytest.mark.parametrize("mirror", [flip, partial(flip, vertically=True)])
def test_flipping_twice_changes_nothing(mirror: Callable[[Picture], Picture]) -> None:
    picture = drawn(40, 61, (3, 5, 30, 20))
    twice = mirror(mirror(picture))
    np.testing.assert_array_equal(twice.image, picture.image)
    np.testing.assert_array_equal(twice.boxes_xyxy, picture.boxes_xyxy)


def test_boxes_follow_a_random_affine_map() -> None:
    compare_many(lambda rng: moved(drawn_at_random(rng), HEIGHT, WIDTH, VARIED, rng))


@pytest.mark.parametrize("corner", range(4))
def test_boxes_follow_a_mosaic_from_every_corner(corner: int) -> None:
    # A picture is out of view when the four meet far from the middle.
    centred = replace(VARIED, scale=(0.5, 0.8))

    def make(rng: np.random.Generator) -> Picture:
        pictures = [black(*rng.integers(100, 300, size=2).tolist()) for _ in range(4)]
        pictures[corner] = drawn_at_random(rng)
        return mosaic(pictures, HEIGHT, WIDTH, centred, rng)

    compare_many(make)


@pytest.mark.parametrize("boxed", ["first", "second"])
def test_boxes_follow_mixup_from_either_picture(boxed: str) -> None:
    def make(rng: np.random.Generator) -> Picture:
        if boxed == "second":
            return mix_up(black(HEIGHT, WIDTH), drawn_at_random(rng), VARIED, rng)
        first = moved(drawn_at_random(rng), HEIGHT, WIDTH, VARIED, rng)
        black_round = Picture(
            np.where(first.image > 128, 255, 0).astype(np.uint8), first.boxes_xyxy, first.class_ids
        )
        return mix_up(black_round, black(100, 120), VARIED, rng)

    # White over black is 127, and padding over black 57.
    compare_many(make, threshold=100)


@pytest.mark.parametrize("closing", [True, False])
def test_boxes_follow_a_whole_sample(closing: bool) -> None:
    def make(rng: np.random.Generator) -> Picture:
        pictures = Pictures([drawn_at_random(rng), *(black(90, 120) for _ in range(50))])
        spec = SampleSpec(0, 0, HEIGHT, WIDTH, closing=closing)
        picture = augment(pictures, spec, VARIED, int(rng.integers(1 << 30)))
        # The first picture may be drawn again for another corner.
        return picture if len(picture.boxes_xyxy) == 1 else black(HEIGHT, WIDTH)

    compare_many(make)


@settings(deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 1 << 30))
def test_any_size_of_picture_gives_a_sound_sample(height: int, width: int, seed: int) -> None:
    one_pixel = drawn(height, width, (width - 1, height - 1, width, height))
    varied = Augmentation(mosaic_probability=0.6, affine_probability=0.5, mixup_probability=0.5)

    picture = augment(Pictures([one_pixel, black(1, 300)]), SampleSpec(0, 0, 96, 64), varied, seed)

    assert picture.image.shape == (96, 64, 3)
    assert picture.image.dtype == np.uint8
    assert_sound(picture, varied.min_side)


def test_pictures_without_boxes_give_samples_without_boxes() -> None:
    pictures = Pictures([black(50, 70), black(80, 20)])
    for spec in (SampleSpec(0, 0, 64, 64), SampleSpec(1, 3, 64, 64, closing=True)):
        picture = augment(pictures, spec, Augmentation(), 0)
        assert picture.boxes_xyxy.shape == (0, 4)
        assert picture.class_ids.shape == (0,)


def test_a_box_outside_of_the_view_is_dropped_even_with_no_limits() -> None:
    lenient = Augmentation(min_side=0, min_visible=0)
    canvas = blank(40, 50)
    boxes = np.array([[-20, -20, 0, 0], [50, 10, 90, 30], [10, 10, 10.5, 10.5]], np.float32)

    picture = in_view(canvas, Picture(canvas, boxes, np.arange(3)), scaling(1), lenient)

    assert picture.class_ids.tolist() == [2]


def test_a_turned_box_that_is_cut_off_is_measured_by_what_is_in_view() -> None:
    # A square on its tip, 100 across, whose middle is 20 pixels right of the view's left edge.
    half = 50 / np.sqrt(2)
    square = np.array([[-half, -half, half, half]], np.float32)
    turn = np.array([[1, -1, 0], [1, 1, 0], [0, 0, np.sqrt(2)]]) / np.sqrt(2)
    canvas = blank(40, 200)
    lenient = Augmentation(min_visible=0.1)

    picture = in_view(
        canvas, Picture(canvas, square, np.array([7])), translation(20, 60) @ turn, lenient
    )

    # Its upper tip is 10 pixels below the view's top; at the view's bottom it is 60 across.
    np.testing.assert_allclose(picture.boxes_xyxy, [[0, 10, 50, 40]], atol=1e-4)


def test_tiny_remains_of_boxes_are_dropped() -> None:
    canvas = blank(40, 50)
    boxes = np.array(
        [
            [-81, 10, 19, 30],  # 19 % in view
            [-79, 10, 21, 30],  # 21 %
            [10, 10, 11, 40],  # one pixel wide
        ],
        np.float32,
    )

    picture = in_view(canvas, Picture(canvas, boxes, np.arange(3)), scaling(1), Augmentation())

    assert picture.class_ids.tolist() == [1]
    np.testing.assert_array_equal(picture.boxes_xyxy, [[0, 10, 21, 30]])


def test_painting_at_a_scale_is_what_the_letterbox_does() -> None:
    image = np.random.default_rng(0).integers(0, 256, (225, 300, 3), np.uint8)
    expected, way_back = letterbox(image, 160, 160)
    canvas = blank(160, 160)

    paint(canvas, image, scaling(way_back.ratio))

    assert np.abs(canvas.astype(int) - expected).max() <= 2


def test_painting_a_part_of_an_image_gives_what_the_whole_does() -> None:
    image = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
    varied = Augmentation(scale=(0.5, 4))
    for seed in range(30):
        rng = np.random.default_rng(seed)
        matrix = translation(*rng.uniform(-150, 50, size=2)) @ random_affine(64, 96, varied, rng)
        small, large = blank(64, 96), blank(264, 296)

        paint(small, image, matrix)
        paint(large, image, translation(100, 100) @ matrix)

        # OpenCV rounds places to a fraction of a pixel.
        difference = np.abs(small.astype(int) - large[100:164, 100:196])
        assert difference.mean() < 1


def test_no_padding_shows_between_the_pictures_of_a_mosaic() -> None:
    unmoved = Augmentation(
        scale=(1, 1), rotation_degrees=20, shear_degrees=5, translation=0, hsv_probability=0
    )
    white = Picture(np.full((64, 64, 3), 255, np.uint8), *_no_boxes())
    for seed in range(20):
        picture = mosaic([white] * 4, 64, 64, unmoved, np.random.default_rng(seed))
        # Away from the outer edges, which a turn may bring into view.
        assert (picture.image[24:40, 24:40] == 255).all()


def _no_boxes() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return np.zeros((0, 4), np.float32), np.zeros(0, np.int64)


def test_a_closing_sample_is_the_letterboxed_picture() -> None:
    picture = drawn(300, 200, (20, 30, 120, 200))
    still = Augmentation(flip_probability=0, hsv_probability=0)

    sample = augment(Pictures([picture] * 4), SampleSpec(2, 9, 160, 160, closing=True), still, 0)

    expected, way_back = letterbox(picture.image, 160, 160)
    np.testing.assert_array_equal(sample.image, expected)
    np.testing.assert_allclose(way_back.to_image(sample.boxes_xyxy), picture.boxes_xyxy, atol=1e-3)


def test_the_padding_of_a_letterboxed_sample_keeps_its_value() -> None:
    sample = augment(
        Pictures([black(100, 50)]), SampleSpec(0, 0, 64, 64, closing=True), Augmentation(), 4
    )
    assert (sample.image[:, 32:] == 114).all()


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_mixup_shows_all_of_a_small_picture_and_only_a_large_one(factor: float) -> None:
    white = Picture(np.full((64, 64, 3), 255, np.uint8), *_no_boxes())
    sized = Augmentation(mixup_scale=(factor, factor))
    corners = set()
    for seed in range(20):
        picture = mix_up(black(64, 64), white, sized, np.random.default_rng(seed))
        x1, y1, x2, y2 = extent(picture.image, threshold=100).tolist()
        corners.add((x1, y1))
        assert (x2 - x1, y2 - y1) == pytest.approx((min(1, factor) * 64,) * 2, abs=1)
    assert (len(corners) > 1) == (factor < 1)


def test_mixup_takes_only_pictures_with_boxes() -> None:
    red = Picture(np.full((64, 64, 3), (0, 0, 255), np.uint8), *_no_boxes())
    always = Augmentation(scale=(1, 1), hsv_probability=0, mixup_scale=(1, 1), min_visible=0)
    boxed = drawn(64, 64, (0, 0, 64, 64))
    for epoch in range(20):
        sample = augment(Pictures([red, boxed]), SampleSpec(0, epoch, 64, 64), always, 0)
        # Half white everywhere, whatever lies below.
        assert sample.image.min() >= 127
        assert 7 in sample.class_ids


def test_equal_specs_give_equal_samples_and_others_do_not() -> None:
    pictures = Pictures([drawn_at_random(np.random.default_rng(i)) for i in range(5)])

    def sample(seed: int, spec: SampleSpec) -> bytes:
        return augment(pictures, spec, Augmentation(), seed).image.tobytes()

    spec = SampleSpec(1, 2, 64, 64)
    assert sample(3, spec) == sample(3, spec)
    others = [sample(4, spec)]
    others += [sample(3, replace(spec, **{name: 0})) for name in ("index", "epoch")]
    others += [sample(3, replace(spec, draw=1)), sample(3, replace(spec, closing=True))]
    assert len({sample(3, spec), *others}) == 6


def test_a_sample_leaves_its_sources_alone() -> None:
    picture = drawn(80, 90, (3, 4, 50, 60))
    picture.image.flags.writeable = False
    picture.boxes_xyxy.flags.writeable = False
    for closing in (True, False):
        augment(
            Pictures([picture] * 3), SampleSpec(0, 0, 64, 64, closing=closing), Augmentation(), 1
        )


def test_colours_change_within_their_limits() -> None:
    image = np.full((8, 8, 3), (60, 120, 180), np.uint8)
    limits = Augmentation(hue=0, saturation=0, value=30)
    changed = {
        int(jitter_hsv(image, limits, np.random.default_rng(seed)).max()) for seed in range(200)
    }
    assert 180 in changed
    assert len(changed) > 30
    assert changed <= set(range(150, 211))


def test_colours_stop_at_black_and_white() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    strong = Augmentation(hue=0, saturation=0, value=255)
    for seed in range(20):
        grey = jitter_hsv(ramp, strong, np.random.default_rng(seed))[0, :, 0]
        # A ramp that went round would fall somewhere.
        assert (np.diff(grey.astype(int)) >= 0).all()


def test_hue_goes_round() -> None:
    red = np.full((8, 8, 3), (0, 0, 255), np.uint8)
    limits = Augmentation(hue=20, saturation=0, value=0)
    found = [jitter_hsv(red, limits, np.random.default_rng(seed))[0, 0] for seed in range(100)]

    # To the side of magenta and to that of yellow, by 40 of the 60 degrees at most.
    blues, greens, reds = np.transpose(found).tolist()
    assert set(reds) == {255}
    assert all(0 in pair for pair in zip(blues, greens, strict=True))
    for side in (blues, greens):
        assert 150 < max(side) <= 172


def test_colours_that_nothing_shifts_are_left_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    nothing = Augmentation(hue=0, saturation=0, value=0)
    for seed in range(5):
        np.testing.assert_array_equal(
            jitter_hsv(image, nothing, np.random.default_rng(seed)), image
        )


def test_sizes_change_every_ten_iterations_within_their_limits() -> None:
    sizes = [training_size(1, i, 416, 416, changes=(5, 5)) for i in range(600)]
    for i in range(0, 600, 10):
        assert len(set(sizes[i : i + 10])) == 1
    assert {height for height, _ in sizes} == set(range(256, 577, 32))
    assert all(height == width for height, width in sizes)
    assert sizes == [training_size(1, i, 416, 416, changes=(5, 5)) for i in range(600)]


# exps/default of the release: `random_size` of nano and tiny, `multiscale_range` of the others.
@pytest.mark.parametrize(
    ("variant", "side", "smallest", "largest"),
    [("nano", 416, 320, 640), ("tiny", 416, 320, 640), ("s", 640, 480, 800), ("x", 640, 480, 800)],
)
def test_sizes_are_those_of_the_release(
    variant: Variant, side: int, smallest: int, largest: int
) -> None:
    changes = augmentation_for(variant).size_changes
    sizes = {training_size(2, 10 * i, side, side, changes=changes) for i in range(600)}
    assert sizes == {(size, size) for size in range(smallest, largest + 1, 32)}
    assert smallest_training_size(side, side, changes=changes) == (smallest, smallest)


def test_sizes_keep_the_proportion_and_never_vanish() -> None:
    for iteration in range(0, 300, 10):
        height, width = training_size(0, iteration, 64, 128, changes=(9, 9))
        assert height >= 32
        assert width == pytest.approx(2 * height, abs=32)
        assert height % 32 == width % 32 == 0
    assert training_size(0, 123, 416, 640, changes=(0, 0)) == (416, 640)


def test_small_models_learn_from_samples_that_vary_less() -> None:
    nano, large = augmentation_for("nano"), augmentation_for("l")
    assert nano.mixup_probability == 0
    assert nano.scale == (0.5, 1.5)
    assert large == Augmentation()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("flip_probability", 1.5), ("scale", (2.0, 1.0)), ("scale", (0.0, 1.0))),
        *(("min_side", -1.0), ("multiscale_steps", -1), ("multiscale_steps", (3, -7))),
    ],
)
def test_settings_without_a_meaning_are_refused(field: str, value: object) -> None:
    with pytest.raises(ModelExportError, match=field):
        Augmentation(**{field: value})  # type: ignore[arg-type]
