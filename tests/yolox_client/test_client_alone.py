"""The client works where nothing of the server is installed, and against a real server."""

import asyncio
import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

from support.client import serving
from support.model_files import NAMES, model_file
from support.pictures import encode, photo_like, plain
from support.project import ROOT
from support.servers import Server
from yolox_client import AsyncClient, Client, InvalidImageError, UnusableImageError

ONLY_HTTPX2 = """
import sys
sys.path.insert(0, sys.argv[1])
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import yolox_client
with yolox_client.Client(sys.argv[2]) as client:
    result = client.detect(sys.argv[3])
    print(len(result.detections), result.to_yolo().count("\\n"), len(result.to_coco()["images"]))
"""
MISSING = {"numpy", "PIL", "cv2", "fastapi", "pydantic", "starlette", "supervision", "service"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    running = Server("--model", str(model_file(tmp_path_factory.mktemp("model"))))
    yield running.url
    running.close()


def test_it_needs_nothing_but_httpx2(url: str, tmp_path: Path) -> None:
    """Beside a module of the user's that is called `service`, too."""
    shutil.copytree(ROOT / "yolox_client", tmp_path / "yolox_client")
    (tmp_path / "service.py").write_text("raise SystemExit('this is mine')")
    (tmp_path / "white.png").write_bytes(plain(255))
    code = ONLY_HTTPX2.format(missing=MISSING)
    command = [sys.executable, "-I", "-c", code, str(tmp_path), url, str(tmp_path / "white.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found, lines, images = map(int, done.stdout.split())
    assert found == lines > 0
    assert images == 1


WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
sys.path.insert(0, sys.argv.pop(1))
"""


def without(missing: set[str], code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run code where some packages are not installed."""
    command = [sys.executable, "-I", "-c", WITHOUT.format(missing=missing) + code, str(ROOT)]
    return subprocess.run([*command, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [(), ("serve",), ("--version",), ("detect", "a.jpg")])
def test_the_command_beside_the_client_alone_says_what_to_install(words: tuple[str, ...]) -> None:
    missing = {"cyclopts", "structlog", "pydantic", "numpy", "fastapi"}
    code = "from yolox_serve.__main__ import main; raise SystemExit(main())"
    done = without(missing, code, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'yolox-serve[cpu]'" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("missing", "call", "said"),
    [
        ({"supervision"}, "to_supervision()", "pip install 'yolox-serve[track]'"),
        ({"numpy", "PIL"}, "to_supervision()", "pip install 'yolox-serve[track]'"),
        ({"numpy", "PIL"}, "draw('a.png')", "pip install numpy pillow"),
    ],
)
def test_a_conversion_says_what_it_needs(missing: set[str], call: str, said: str) -> None:
    code = f"from yolox_client import ImageResult; ImageResult('a.png', 1, 1).{call}"
    done = without(missing, code)
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]


def test_both_clients_find_what_the_server_finds(url: str) -> None:
    white = plain(255)
    found = httpx2.post(f"{url}/detect", content=white).json()["results"][0]["detections"]
    with Client(url) as client:
        blocking = client.detect(np.full((64, 64), 255, np.uint8))
        assert client.class_names() == NAMES
        assert client.model()["contract"]["name"] == "tiny"

    each = blocking.detections[0]
    assert [each.score, each.objectness] == [found[0]["score"], found[0]["objectness"]]
    assert list(each.box) == list(found[0]["box"].values())
    assert blocking.model is not None
    assert blocking.model.name == "tiny"
    asyncio.run(_same(url, white, blocking.detections))


async def _same(url: str, image: bytes, detections: object) -> None:
    async with AsyncClient(url) as client:
        assert (await client.detect(image)).detections == detections
        assert await client.class_names() == NAMES


def test_many_images_keep_their_order(url: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(30)]
    for number, path in enumerate(paths):
        path.write_bytes(plain(255, width=40 + number))
    paths[7].write_bytes(b"no image")
    paths[8].unlink()
    with Client(url) as client:
        results = list(client.detect_many(iter(paths), batch=4, concurrency=3))
    assert [result.filename for result in results] == [path.name for path in paths]
    good = [number for number, result in enumerate(results) if result.error is None]
    assert good == [number for number in range(30) if number not in (7, 8)]
    assert [results[number].width for number in good] == [40 + number for number in good]
    assert isinstance(results[8].error, UnusableImageError)
    assert asyncio.run(_widths(url, paths)) == [result.width for result in results]


async def _widths(url: str, paths: list[Path]) -> list[int]:
    async with AsyncClient(url) as client:
        return [each.width async for each in client.detect_many(paths, batch=5, concurrency=2)]


def test_images_are_taken_only_as_there_is_room(url: str) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield plain(255)

    with Client(url) as client:
        results = client.detect_many(endless(), batch=1, concurrency=2)
        assert [next(results).error for _ in range(5)] == [None] * 5
        results.close()  # type: ignore[attr-defined]
    assert taken <= 5 + 2 + 1


def test_one_bad_image_raises(url: str) -> None:
    with Client(url) as client, pytest.raises(InvalidImageError):
        client.detect(plain()[:60])


def test_options_and_keys_arrive() -> None:
    with serving(api_key="secret") as server:
        transport = server._transport
        with Client("http://testserver", api_key="secret", transport=transport) as client:
            image = encode(photo_like(64, 64))
            assert client.detect(image, classes=["dog"], confidence=0.1).detections
            assert not client.detect(image, classes=[0, "owl"], class_agnostic=False).detections
            picture = client.annotate(image, picture="png", nms="hard")
    assert Image.open(io.BytesIO(picture)).size == (64, 64)


def test_an_array_without_pillow_says_what_it_needs() -> None:
    code = (
        "import numpy as np; from yolox_client.images import PixelForm, as_file; "
        "as_file(np.zeros((4, 4), np.uint8), PixelForm())"
    )
    done = without({"PIL"}, code)
    assert done.returncode == 1
    assert "pip install numpy pillow" in done.stderr.splitlines()[-1]
