"""The examples of clients, run against a server; other people's libraries are stand-ins."""

import base64
import functools
import http.server
import io
import json
import re
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import pytest
import yaml

from service.build import DEFAULT_MODEL
from support.model_files import NAMES, model_file
from support.pictures import encode, photo_like, plain
from support.project import ROOT
from support.servers import Server

EXAMPLES = ROOT / "examples" / "clients"
Example = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    running = Server("--model", str(model_file(tmp_path_factory.mktemp("model"))))
    yield running.url
    running.close()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(encode(photo_like(64, 48, number), "JPEG"))
    return folder


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Example:
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: object) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        return runpy.run_path(str(EXAMPLES / name))

    return run


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    module = ModuleType(name)
    module.__dict__.update(content)
    monkeypatch.setitem(sys.modules, name, module)


def test_every_example_is_listed_and_tested() -> None:
    listed = (ROOT / "examples" / "README.md").read_text()
    tested = Path(__file__).read_text()
    for path in EXAMPLES.iterdir():
        if path.suffix != ".pyc" and path.is_file():
            assert f"clients/{path.name}" in listed
            assert f'"{path.name}"' in tested


def test_the_programs_of_the_documentation_run(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "clients.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(block.replace("http://127.0.0.1:8000", url), {"__name__": "__main__"})  # noqa: S102
    printed = capsys.readouterr().out.splitlines()
    assert len(blocks) == 2
    assert printed[0].split()[0] in NAMES
    assert any(line.startswith("street.jpg ") for line in printed)


def test_photo(
    example: Example, url: str, photos: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    example("photo.py", photos / "0.jpg", url)
    printed = capsys.readouterr().out
    assert any(printed.startswith(name) for name in NAMES)
    assert (tmp_path / "boxes.jpg").read_bytes()[:2] == b"\xff\xd8"


def test_folder(
    example: Example, url: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "1.jpg").write_bytes(b"bad")
    example("folder.py", photos, url)
    out, err = capsys.readouterr()
    dataset = json.loads(out)
    assert [image["id"] for image in dataset["images"]] == [1, 3]
    assert [category["name"] for category in dataset["categories"]] == list(NAMES)
    assert err.startswith("1.jpg: 415")


def test_video_loop(
    example: Example, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for number in range(5):
        writer.write(photo_like(64, 48, number))
    writer.release()
    example("video_loop.py", path, url)
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["0", "1", "2", "3", "4"]


class Bucket:
    """An S3 client of one bucket with two pages of one key each."""

    def get_paginator(self, name: str) -> Any:
        assert name == "list_objects_v2"
        pages = [{"Contents": [{"Key": "in/a.png"}]}, {"Contents": [{"Key": "in/b.txt"}]}, {}]
        asked = {"Bucket": "mine", "Prefix": "in"}
        return SimpleNamespace(paginate=lambda **named: pages if named == asked else [])

    def get_object(self, **named: str) -> Any:
        return {"Body": io.BytesIO(plain(255) if named["Key"].endswith("png") else b"text")}


def test_s3(
    example: Example, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, "boto3", client=lambda service: Bucket())
    example("s3_and_urls.py", "s3://mine/in", url)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("in/a.png: ")
    assert any(name in first for name in NAMES)
    assert second.startswith("in/b.txt: 415")


def test_an_address(
    example: Example, url: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(photos))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/0.jpg"
        example("s3_and_urls.py", address, url)
        server.shutdown()
    assert capsys.readouterr().out.startswith(address)


class Sample(dict[str, Any]):
    saved = False

    def __init__(self, filepath: str) -> None:
        super().__init__()
        self.filepath = filepath

    def save(self) -> None:
        self.saved = True


def test_fiftyone(
    example: Example, url: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [Sample(str(path)) for path in sorted(photos.iterdir())]
    dataset = SimpleNamespace(from_images_dir=lambda folder: samples)
    kinds = {"Detections": SimpleNamespace, "Detection": SimpleNamespace}
    stand_in(monkeypatch, "fiftyone", Dataset=dataset, **kinds)
    example("fiftyone_dataset.py", photos, url)
    assert all(sample.saved for sample in samples)
    found = samples[0]["yolox"].detections[0]
    assert found.label in NAMES
    assert all(0 <= value <= 1 for value in found.bounding_box)


class MLBase:
    """The parts of Label Studio's base class that a backend uses."""

    label_interface = SimpleNamespace(
        get_first_tag_occurence=lambda control, image: ("label", "photo", "file")
    )

    def __init__(self) -> None:
        self.said: dict[str, str] = {}
        self.setup()

    def setup(self) -> None:
        raise NotImplementedError

    def set(self, name: str, value: str) -> None:
        self.said[name] = value

    def get_local_path(self, address: str, task_id: int) -> str:
        return address


def test_label_studio(
    example: Example, url: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, "label_studio_ml")
    stand_in(monkeypatch, "label_studio_ml.model", LabelStudioMLBase=MLBase)
    stand_in(monkeypatch, "label_studio_ml.response", ModelResponse=SimpleNamespace)
    monkeypatch.setenv("DETECTOR_URL", url)
    (photos / "1.jpg").write_bytes(b"bad")
    backend = example("label_studio_backend.py")["YoloxBackend"]()
    tasks = [{"id": at, "data": {"file": str(photos / f"{at}.jpg")}} for at in range(2)]
    good, bad = backend.predict(tasks).predictions
    backend.client.close()
    assert backend.said == {"model_version": "tiny"}
    region = good["result"][0]
    assert (region["from_name"], region["to_name"]) == ("label", "photo")
    assert region["value"]["rectanglelabels"][0] in NAMES
    assert good["model_version"] == "tiny"
    assert bad == {"result": []}


def test_cvat(example: Example, url: str, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTOR_URL", url)
    function = example("cvat_nuclio.py")
    context = SimpleNamespace(user_data=SimpleNamespace(), Response=SimpleNamespace)
    function["init_context"](context)

    def ask(content: bytes) -> Any:
        body = {"image": base64.b64encode(content).decode(), "threshold": 0.4}
        return function["handler"](context, SimpleNamespace(body=body))

    answer = ask((photos / "0.jpg").read_bytes())
    rectangle = json.loads(answer.body)[0]
    assert answer.status_code == 200
    assert rectangle["label"] in NAMES
    assert (rectangle["type"], len(rectangle["points"])) == ("rectangle", 4)
    assert ask(b"bad").status_code == 502
    context.user_data.client.close()


def test_cvat_is_told_the_classes_of_the_embedded_model() -> None:
    described = yaml.safe_load((EXAMPLES / "cvat_nuclio.yaml").read_text())
    labels = json.loads(described["metadata"]["annotations"]["spec"])
    card = DEFAULT_MODEL.with_suffix(".md").read_text()
    for label in labels:
        assert f"| {label['id']} | `{label['name']}` |" in card
    assert f"| {len(labels)} | `" not in card


def test_javascript(url: str, photos: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    command = [node, str(EXAMPLES / "detect.mjs"), str(photos / "0.jpg")]
    done = subprocess.run([*command, url], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in NAMES
    bad = photos / "bad.jpg"
    bad.write_bytes(b"bad")
    command[2] = str(bad)
    done = subprocess.run([*command, url], capture_output=True, text=True, check=False, timeout=60)
    assert "Unsupported type" in done.stderr
