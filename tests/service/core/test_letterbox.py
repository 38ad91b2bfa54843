from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.letterbox import Rectangle, letterbox


@pytest.mark.parametrize("name", ["dog", "000000397133", "000000184324"])
def test_letterbox_equals_the_official_one(shared_data: Path, name: str) -> None:
    golden = np.load(shared_data / "golden" / f"official_nano_{name}.npz")
    folder = "golden/images" if name == "dog" else "coco-subset/images"
    image = cv2.imread(str(next((shared_data / folder).glob(f"*{name}.jpg"))))
    assert image is not None

    canvas, way_back = letterbox(image, 416, 416)

    np.testing.assert_array_equal(canvas.transpose(2, 0, 1), golden["letterbox_u8_chw"])
    assert way_back.ratio == pytest.approx(float(golden["ratio"]))


@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from([None, Rectangle()]))
def test_content_is_top_left_and_the_rest_is_padding(
    height: int, width: int, rectangle: Rectangle | None
) -> None:
    black = np.zeros((height, width, 3), np.uint8)
    canvas, way_back = letterbox(black, 128, 192, rectangle=rectangle)
    content_height = max(1, int(height * way_back.ratio))
    content_width = max(1, int(width * way_back.ratio))
    assert not canvas[:content_height, :content_width].any()
    assert (canvas[content_height:] == 114).all()
    assert (canvas[:, content_width:] == 114).all()


@given(st.integers(1, 900), st.integers(1, 900))
def test_square_is_the_whole_network_size(height: int, width: int) -> None:
    canvas, _ = letterbox(np.zeros((height, width, 3), np.uint8), 128, 192)
    assert canvas.shape == (128, 192, 3)


@given(st.integers(1, 900), st.integers(1, 900))
def test_rectangle_is_the_smallest_multiple_of_32_that_holds_the_image(
    height: int, width: int
) -> None:
    black = np.zeros((height, width, 3), np.uint8)
    canvas, way_back = letterbox(black, 128, 192, rectangle=Rectangle())
    for side, image_side, most in ((canvas.shape[0], height, 128), (canvas.shape[1], width, 192)):
        content = max(1, int(image_side * way_back.ratio))
        assert side % 32 == 0
        assert content <= side <= most
        assert side - content < 32


@pytest.mark.parametrize(
    ("image", "least_side", "network"),
    [
        ((8, 400), 64, (64, 192)),
        ((400, 8), 64, (128, 64)),
        ((70, 192), 64, (96, 192)),
        ((8, 400), 128, (128, 192)),
        ((400, 8), 33, (128, 64)),
    ],
)
def test_a_strip_is_padded_to_the_least_side(
    image: tuple[int, int], least_side: int, network: tuple[int, int]
) -> None:
    black = np.zeros((*image, 3), np.uint8)
    canvas, way_back = letterbox(black, 128, 192, rectangle=Rectangle(32, least_side))
    assert canvas.shape[:2] == network == (way_back.network_height, way_back.network_width)


def test_boxes_come_back_to_image_pixels_and_stay_inside() -> None:
    _, way_back = letterbox(np.zeros((200, 400, 3), np.uint8), 100, 100)
    boxes = np.array([[10, 5, 50, 25], [-10, -5, 500, 500]], dtype=np.float32)
    np.testing.assert_allclose(way_back.to_image(boxes), [[40, 20, 200, 100], [0, 0, 400, 200]])
