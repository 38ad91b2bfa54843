"""The pictures beside the README's request hold symbols that an independent decoder reads."""

import cv2
import numpy as np
import pytest

from model_export.measure.barcodes.truth import decode
from support.project import ROOT

EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize(("name", "symbols"), [("parcel", 3), ("shelf", 6), ("ticket", 2)])
def test_every_symbol_of_an_example_can_be_read(name: str, symbols: int) -> None:
    pixels = cv2.imread(str(EXAMPLES / f"{name}.jpg"), cv2.IMREAD_COLOR)
    assert len(decode(np.asarray(pixels, dtype=np.uint8))) == symbols
