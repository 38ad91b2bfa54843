"""Pictures of what was found: colours, labels and lines."""

import io
import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.core.decode import Detections
from service.imaging.draw import draw_detections
from yolox_client.drawing.boxes import LabelStyle
from yolox_client.drawing.colors import class_color, oklab, palette, text_color
from yolox_client.drawing.labels import LabelPlaces

STOP_SIGN, CLOCK = 11, 74
NAMES = tuple(f"class {number}" for number in range(80))


def found(*boxes: tuple[float, float, float, float], class_ids: Any = None) -> Detections:
    count = len(boxes)
    scores = np.linspace(0.9, 0.5, count, dtype=np.float32)
    ids = np.arange(count) if class_ids is None else np.array(class_ids)
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), scores, scores, ids, scores)


def drawn(
    detections: Detections, width: int = 640, height: int = 480, names: tuple[str, ...] = NAMES
) -> NDArray[np.uint8]:
    grey = np.full((height, width, 3), 128, np.uint8)
    content = draw_detections(grey, detections, names, "image/png")
    return np.asarray(Image.open(io.BytesIO(content)))


def lightness(class_id: int) -> float:
    return float(oklab(np.array([class_color(class_id)]))[0, 0])


def overlap(first: Any, second: Any) -> bool:
    return bool(
        first[0] < second[2]
        and second[0] < first[2]
        and first[1] < second[3]
        and second[1] < first[3]
    )


def test_a_stop_sign_and_a_clock_differ_in_colour_and_in_lightness() -> None:
    points = oklab(np.array([class_color(STOP_SIGN), class_color(CLOCK)]))
    assert np.linalg.norm(points[0] - points[1]) > 0.15
    assert abs(lightness(STOP_SIGN) - lightness(CLOCK)) > 0.1


def test_no_two_of_eighty_classes_look_the_same() -> None:
    points = oklab(np.array(palette()[:80]))
    nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(points, 2))
    assert nearest > 0.045, "twice what people just notice"


def test_the_first_classes_stay_apart_where_red_and_green_look_alike() -> None:
    points = oklab(np.array(palette()[:8])) * [1, 0.25, 1]
    nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(points, 2))
    assert nearest > 0.1


def test_text_is_readable_on_every_colour() -> None:
    for color in palette():
        contrast = _contrast(color, text_color(color))
        assert contrast > 3, color


def _contrast(first: tuple[int, int, int], second: tuple[int, int, int]) -> float:
    """WCAG's contrast ratio."""
    low, high = sorted(_luminance(color) for color in (first, second))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: tuple[int, int, int]) -> float:
    values = np.array(color) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 30, 30),
        (620, 0, 640, 10),
        (0, 470, 20, 480),
        (630, 470, 640, 480),
        (0, 0, 640, 480),
        (300, 200, 301, 201),
    ],
)
def test_a_label_lies_inside_the_picture(box: tuple[float, float, float, float]) -> None:
    label = LabelStyle(1, (640, 480)).place("stop sign 0.90", box, LabelPlaces(640, 480))
    assert label is not None
    x1, y1, x2, y2 = label.rectangle
    assert 0 <= x1 < x2 < 640
    assert 0 <= y1 < y2 < 480


def test_labels_of_boxes_in_one_place_do_not_cover_one_another() -> None:
    places, style = LabelPlaces(640, 480), LabelStyle(1, (640, 480))
    box = (200.0, 150.0, 400.0, 350.0)
    placed = [style.place(f"class {number} 0.50", box, places) for number in range(12)]
    rectangles = [label.rectangle for label in placed if label is not None]
    assert len(rectangles) == 12
    assert not any(overlap(*pair) for pair in itertools.combinations(rectangles, 2))


def test_the_best_detection_has_its_label_in_the_usual_place() -> None:
    places = LabelPlaces(640, 480)
    assert places.take((100, 100, 200, 200), (60, 20)) == (100, 80)
    assert places.take((100, 100, 200, 200), (60, 20)) == (100, 100)


def test_where_there_is_no_room_labels_still_lie_inside_the_picture() -> None:
    places = LabelPlaces(60, 20)
    assert {places.take((0, 0, 60, 20), (60, 20)) for _ in range(5)} == {(0, 0)}


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (20, 20), (10, 300), (3000, 3)])
def test_pictures_of_any_size_can_be_drawn_on(size: tuple[int, int]) -> None:
    pixels = drawn(found((0, 0, *size), (0, 0, 0.5, 0.4), (1, 1, 1, 1)), *size)
    assert pixels.shape == (size[1], size[0], 3)


def test_a_label_wider_than_the_picture_is_shortened() -> None:
    style = LabelStyle(1, (80, 480))
    label = style.place("a class with a long name 0.90", (0, 100, 80, 200), LabelPlaces(80, 480))
    assert label is not None
    assert label.text.startswith("a cl")
    assert label.text.endswith("…")
    assert label.rectangle[2] < 80


def line_width(pixels: NDArray[np.uint8], row: int, color: tuple[int, int, int]) -> int:
    """Pixels of this colour in a row that crosses the two upright lines of a box, for each."""
    return int((pixels[row] == color).all(axis=-1).sum()) // 2


def test_lines_grow_with_the_picture_and_shrink_with_the_box() -> None:
    color = class_color(0)
    plain = line_width(drawn(found((100, 100, 400, 400))), 300, color)
    large = line_width(drawn(found((100, 100, 1000, 1000)), 2560, 1440), 700, color)
    small = line_width(drawn(found((300, 300, 312, 312))), 306, color)
    assert (plain, large, small) == (3, 12, 1)


def test_the_label_of_the_best_is_not_crossed_by_the_frame_of_another() -> None:
    label = LabelStyle(1, (640, 480)).place(
        "class 0 0.90", (100, 100, 300, 300), LabelPlaces(640, 480)
    )
    assert label is not None
    x1, y1, x2, y2 = (int(value) for value in label.rectangle)
    alone = drawn(found((100, 100, 300, 300)))
    both = drawn(found((100, 100, 300, 300), (120, 90, 500, 400)))
    assert (alone[y1:y2, x1:x2] == both[y1:y2, x1:x2]).all()
