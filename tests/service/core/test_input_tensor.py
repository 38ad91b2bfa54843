"""Images become the tensor that a contract describes."""

import numpy as np
import pytest

from service.core.contract import InputDtype, InputSpec, Layout
from service.core.input_tensor import pack_images

# (N, H, W, 3): no two values alike, so that no swap of axes or channels goes unseen.
IMAGES = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)


def test_bytes_in_the_models_own_layout_are_not_copied() -> None:
    assert pack_images(IMAGES, InputSpec("images", 4, 5)) is IMAGES


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_each_pixel_goes_to_its_place(layout: Layout, dtype: InputDtype) -> None:
    tensor = pack_images(IMAGES, InputSpec("images", 4, 5, layout=layout, dtype=dtype))

    expected = IMAGES if layout == "NHWC" else np.moveaxis(IMAGES, 3, 1)
    assert tensor.dtype == dtype
    assert tensor.flags.c_contiguous
    np.testing.assert_array_equal(tensor, expected)


def test_rgb_models_get_red_first() -> None:
    tensor = pack_images(IMAGES, InputSpec("images", 4, 5, color_order="RGB"))

    np.testing.assert_array_equal(tensor[..., 0], IMAGES[..., 2])
    np.testing.assert_array_equal(tensor[..., 2], IMAGES[..., 0])


def test_value_range_scales_bytes() -> None:
    spec = InputSpec("images", 1, 1, dtype="float32", value_range=(-1.0, 1.0))
    ends = np.array([[[[0, 255, 51]]]], dtype=np.uint8)

    np.testing.assert_allclose(pack_images(ends, spec).ravel(), [-1, 1, -0.6], atol=1e-6)
