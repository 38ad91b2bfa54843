"""Capturing behind requests: what a served image leaves behind, and what it does not."""

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.capture.folder import CaptureFolder
from support.client import PNG, as_raw, boxes, metric, serving
from support.engines import CpuEngine, FakeEngine
from support.pictures import plain

# The fake engine is sure of its box; with this threshold it is not sure enough.
UNSURE = "?score_by=joint&confidence=0.95"


def records(folder: Path) -> list[dict[str, Any]]:
    found = sorted((folder / "records").glob("*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in found]


def captured(client: TestClient, reason: str, count: int = 1) -> None:
    """Wait until so many were captured for a reason."""
    ends = time.monotonic() + 20
    while metric(client, f'yolox_captured_images_total{{reason="{reason}"}}') < count:
        assert time.monotonic() < ends
        time.sleep(0.01)


@pytest.mark.parametrize("engine", [FakeEngine, CpuEngine])
def test_an_uncertain_image_is_kept_with_its_boxes(
    engine: type[FakeEngine], tmp_path: Path
) -> None:
    with serving(engine(), capture=tmp_path, capture_share=0) as client:
        answer = as_raw(client, plain(255), UNSURE)
        captured(client, "uncertain")
        as_raw(client, plain(255))
    (record,) = records(tmp_path)
    assert (record["reason"], record["model"]) == ("uncertain", "fake@1")
    ((box,),) = boxes(answer)
    left, top, width, height = record["boxes"][0]["xywh"]
    shown = [left, top, left + width, top + height]
    assert shown == pytest.approx([box["box"][side] for side in ("x1", "y1", "x2", "y2")], abs=0.02)
    assert record["boxes"][0]["name"] == box["class_name"]
    written = json.loads((tmp_path / "annotations.json").read_text(encoding="utf-8"))
    assert len(written["images"]) == 1, "written when the server stops, if not before"
    with Image.open(tmp_path / record["file_name"]) as picture:
        assert picture.size == (record["width"], record["height"])


def test_nothing_tells_who_sent_an_image(tmp_path: Path) -> None:
    photo = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "Erika Mustermann"
    Image.open(io.BytesIO(plain(255))).convert("RGB").save(photo, "JPEG", exif=exif)
    assert b"Mustermann" in photo.getvalue()
    secrets = {"X-API-Key": "topsecret", "X-Request-ID": "from-erika", "User-Agent": "erika/1"}
    with serving(FakeEngine(), capture=tmp_path, capture_share=1.0, api_key="topsecret") as client:
        part = {"images": ("erika.jpg", photo.getvalue())}
        assert client.post("/detect", files=part, headers=secrets).status_code == 200
        captured(client, "sample")
    for path in tmp_path.rglob("*"):
        text = path.name.encode() + (path.read_bytes() if path.is_file() else b"")
        for word in (b"erika", b"Mustermann", b"topsecret", b"testclient"):
            assert word not in text, path


def test_by_default_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with serving(FakeEngine()) as client:
        as_raw(client, plain(255), UNSURE)
    assert list(tmp_path.iterdir()) == []


def test_boxes_alone_leave_no_picture(tmp_path: Path) -> None:
    with serving(FakeEngine(), capture=tmp_path, capture_keep="boxes") as client:
        as_raw(client, plain(255), UNSURE)
        captured(client, "uncertain")
    assert list((tmp_path / "images").iterdir()) == []
    assert len(records(tmp_path)) == 1


def test_a_full_disk_costs_no_request_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with serving(FakeEngine(), capture=tmp_path) as client:
        monkeypatch.setattr(CaptureFolder, "add", full)
        assert as_raw(client, plain(255), UNSURE).status_code == 200
        captured(client, "failed")
        assert as_raw(client, plain(255), UNSURE).status_code == 200
        assert client.get("/health/ready").status_code == 200


def test_probes_and_bad_images_are_not_kept(tmp_path: Path) -> None:
    with serving(FakeEngine(), capture=tmp_path, capture_share=1.0) as client:
        assert client.post("/detect", content=b"no image", headers=PNG).status_code == 415
    assert records(tmp_path) == []
