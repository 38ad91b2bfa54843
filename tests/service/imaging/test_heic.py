"""HEIC, with the extra `heic` and without it."""

import base64

import numpy as np
import pytest

from service.errors import InvalidImageError, ServiceError, TooLargeError, UnsupportedTypeError
from service.imaging import kinds
from service.imaging.read import read_image

# Four fields of 32 x 24 pixels each: red and green above blue and yellow. Written by pillow-heif.
PLAIN = (
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAA"
    "AAAAACJpbG9jAAAAAERAAAEAAQAAAAABoQABAAAAAAAAAMoAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAA"
    "AA5waXRtAAAAAAABAAAA/WlwcnAAAADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNw"
    "AAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFz"
    "wIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAA"
    "Av////AAAAACAAAAEHBpeGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAANJtZGF0AAAAxigBrwngITip//M8"
    "b/78nZe0xyeVp79Y//y3r7y4H/36G3R+ja83/xqjv0Aa/4Q7Ewsn5R/+sLL3fQWfiZ7AywHO/G8Q2GeGEL5MxdbEGVrTEAHo"
    "wU1p+fyhJ9JHCoYTldvDqRX1nucbO10hi0591FIOvI++pv5WmuvgUFABysLFW9443FP0xuLvTUlndlkqUknytzEa5SlrmcgA"
    "Edj//EXUjxjvc/hzekKMY1NxJCzUwjJ8sppUf6/WviUUspD4OjsAi9/BgQ=="
)
# The same; EXIF and the container both say that it is to be turned a quarter to the right.
TURNED = (
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAA"
    "AAAAADRpbG9jAAAAAERAAAIAAQAAAAAB7AABAAAAAAAAAMoAAgAAAAACtgABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVp"
    "bmZlAgAAAAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADmaXBjbwAAAHZo"
    "dmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAA"
    "AwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAA"
    "AAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwgICAAAAAlpcm90"
    "AwAAABlpcG1hAAAAAAAAAAEAAQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAAPZtZGF0AAAAxigBrwngITip"
    "//M8b/78nZe0xyeVp79Y//y3r7y4H/36G3R+ja83/xqjv0Aa/4Q7Ewsn5R/+sLL3fQWfiZ7AywHO/G8Q2GeGEL5MxdbEGVrT"
    "EAHowU1p+fyhJ9JHCoYTldvDqRX1nucbO10hi0591FIOvI++pv5WmuvgUFABysLFW9443FP0xuLvTUlndlkqUknytzEa5Slr"
    "mcgAEdj//EXUjxjvc/hzekKMY1NxJCzUwjJ8sppUf6/WviUUspD4OjsAi9/BgQAAAAZFeGlmAABNTQAqAAAACAABARIAAwAA"
    "AAEABgAAAAAAAA=="
)
# The same; the right half is transparent.
HALF = (
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAmttZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAA"
    "AAAAADRpbG9jAAAAAERAAAIAAQAAAAACjwABAAAAAAAAAMoAAgAAAAADWQABAAAAAAAAAKgAAAA4aWluZgAAAAAAAgAAABVp"
    "bmZlAgAAAAABAABodmMxAAAAABVpbmZlAgAAAAACAABodmMxAAAAAA5waXRtAAAAAAABAAABqmlwcnAAAAGCaXBjbwAAAHZo"
    "dmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAA"
    "AwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAA"
    "AAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwgICAAAAHBodmND"
    "AQQIAAAAn/gAAAAAHvAA/Pz4+AAADwNgAAEAF0ABDAH//wQIAAADAJ/4AAADAAAeugJAYQABACVCAQEECAAAAwCf+AAAAwAA"
    "HsCCBBZbq5Ka5sCAAAAMgAAAAwCEYgABAAZEAcFzwIkAAAAOcGl4aQAAAAABCAAAACdhdXhDAAAAAHVybjptcGVnOmhldmM6"
    "MjAxNTphdXhpZDoxAAAAACBpcG1hAAAAAAAAAAIAAQWBAgMFhAACBYYDB4iEAAAAGmlyZWYAAAAAAAAADmF1eGwAAgABAAEA"
    "AAF6bWRhdAAAAMYoAa8J4CE4qf/zPG/+/J2XtMcnlae/WP/8t6+8uB/9+ht0fo2vN/8ao79AGv+EOxMLJ+Uf/rCy930Fn4me"
    "wMsBzvxvENhnhhC+TMXWxBla0xAB6MFNafn8oSfSRwqGE5Xbw6kV9Z7nGztdIYtOfdRSDryPvqb+Vprr4FBQAcrCxVveONxT"
    "9Mbi701JZ3ZZKlJJ8rcxGuUpa5nIABHY//xF1I8Y73P4c3pCjGNTcSQs1MIyfLKaVH+v1r4lFLKQ+Do7AIvfwYEAAACkKAGu"
    "E8BrfEPeP8S700f//VVFKIm50DEUKobz2pX31Wp3klcPv7fQnPkhQZAfb/52tqPjwgsg5UWIO+fYnA+cpxAGn+L14H/4D/zU"
    "P+Uch/8CAJ8twqPUzIgDH7yGi9rNrca/F6Z2Ht/nhxP/naoM4gvbn9N9iM78jzTJoma0Apsddl8bwXfE7jhC+uo92DvEFED4"
    "p9a6HXcC1+l2G+2HNewuaLA="
)
RED, GREEN, BLUE, YELLOW, WHITE = (
    (30, 30, 200),
    (30, 200, 30),
    (200, 30, 30),
    (40, 220, 220),
    (255, 255, 255),
)


@pytest.fixture
def heic() -> None:
    if not kinds.reads_heic():
        pytest.skip("the extra heic is not installed")


@pytest.mark.usefixtures("heic")
@pytest.mark.parametrize(
    ("text", "size", "corners"),
    [
        (PLAIN, (48, 64), (RED, GREEN, BLUE, YELLOW)),
        (TURNED, (64, 48), (BLUE, RED, YELLOW, GREEN)),
        (HALF, (48, 64), (RED, WHITE, BLUE, WHITE)),
    ],
)
def test_a_heic_is_read_upright_and_on_white(
    text: str, size: tuple[int, int], corners: tuple[tuple[int, int, int], ...]
) -> None:
    photo = read_image(base64.b64decode(text), 10_000)
    assert (photo.height, photo.width) == size
    assert photo.pixels.shape == (*size, 3)
    found = [photo.pixels[y, x] for y in (6, -7) for x in (6, -7)]
    np.testing.assert_allclose(found, corners, atol=6)


@pytest.mark.usefixtures("heic")
def test_a_heic_over_the_limit_is_refused_by_its_header() -> None:
    with pytest.raises(TooLargeError, match="64 x 48"):
        read_image(base64.b64decode(PLAIN), 3000)


@pytest.mark.usefixtures("heic")
def test_a_damaged_heic_is_refused_in_the_server_s_own_words() -> None:
    content = base64.b64decode(PLAIN)
    for cut in range(40, len(content), 29):
        with pytest.raises(ServiceError) as raised:
            read_image(content[:cut], 10_000)
        assert isinstance(raised.value, InvalidImageError | UnsupportedTypeError)
        assert "heif" not in raised.value.detail.lower()


def test_without_the_extra_a_heic_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "reads_heic", lambda: False)
    with pytest.raises(UnsupportedTypeError, match=r"^this is HEIC, .*send JPEG$") as raised:
        read_image(base64.b64decode(PLAIN), 10_000)
    assert "AVIF)" in raised.value.detail
