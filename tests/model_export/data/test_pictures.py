"""Pictures of files by number."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_export.data.checked_images import check_images
from model_export.data.forms.coco import read_coco
from model_export.errors import ModelExportError
from support.data_sets import annotation, coco_json
from support.pictures import encode, photo_like

TURNED_LEFT = 6  # EXIF: shown after a quarter turn clockwise


def test_photos_are_read_the_right_way_up(tmp_path: Path) -> None:
    path = coco_json(tmp_path, [annotation(10, 4, 0, 0, 60, 40)], count=1)
    exif = Image.Exif()
    exif[0x0112] = TURNED_LEFT
    sideways = photo_like(40, 60)
    (tmp_path / "0.png").write_bytes(encode(sideways, "JPEG", quality=95, exif=exif))

    picture = check_images(read_coco(path, tmp_path).targets()).pictures(None)[0]

    assert picture.image.shape == (40, 60, 3)
    upright = np.rot90(sideways, k=-1)[:, :, ::-1]
    assert np.abs(picture.image.astype(int) - upright).mean() < 4


def test_an_image_that_changes_its_size_is_named(tmp_path: Path) -> None:
    path = coco_json(tmp_path, [], count=2)
    pictures = check_images(read_coco(path, tmp_path).targets()).pictures(None)
    (tmp_path / "1.png").write_bytes(encode(photo_like(40, 60)))
    assert pictures[0].image.shape == (40, 60, 3)
    with pytest.raises(ModelExportError, match=r"1\.png changed"):
        pictures[1]
