"""`yolox-serve detect` from its command line, with a small model in this process or on a server."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from service.core.model_digest import model_digest
from service.engine.base import CPU
from support.model_files import NAMES, model_file
from support.pictures import encode, photo_like, plain
from support.project import ROOT
from support.servers import Server
from yolox_client import RetryPolicy, async_client
from yolox_serve.__main__ import main
from yolox_serve.detect.journal import Journal, begun_with
from yolox_serve.detect.sources import SourceError

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("model"))


@pytest.fixture
def detect(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YOLOX_MODEL", str(model))
    monkeypatch.setenv("YOLOX_DEVICE", "cpu")

    def run(*words: object, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = main(["detect", *map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(["a.png", "b.png", "more/c.png"]):
        (folder / name).write_bytes(encode(photo_like(64 + number, 48, seed=number)))
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for number in range(9):
        writer.write(photo_like(64, 48, seed=number))
    writer.release()
    return path


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def names(text: str) -> list[str]:
    return [fields["filename"] for fields in lines(text)]


def test_a_folder_gives_a_line_for_each_image(detect: Command, photos: Path) -> None:
    code, out, err = detect(photos)
    assert (code, names(out)) == (0, ["a.png", "b.png", "more/c.png"])
    assert [fields["width"] for fields in lines(out)] == [64, 65, 66]
    assert all(fields["detections"] for fields in lines(out))
    assert "3 images" in err


def test_sources_of_every_kind(detect: Command, photos: Path) -> None:
    for words, stdin in [
        (["photos/a.png", "photos/b.png"], ""),
        (["photos/?.png"], ""),
        (["-"], "photos/a.png\n\nphotos/b.png\n"),
        (["photos/a.png", "photos/*.png"], ""),
    ]:
        code, out, _ = detect(*words, stdin=stdin)
        assert (code, names(out)) == (0, ["photos/a.png", "photos/b.png"]), words
    assert len(names(detect("photos/**/*.png")[1])) == 3
    assert names(detect(photos / "a.png", photos / "more")[1]) == ["a.png", "more/c.png"]
    assert names(detect(photos / "more" / "c.png")[1]) == ["c.png"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing/*.jpg"], "no image or video matches nothing/*.jpg"),
        (["empty"], "the folder empty holds no images or videos"),
        (["-"], "the list is empty"),
        (["photos", "--format", "yolo"], "name a folder: --output"),
        (["photos", "--resume"], "--resume needs the --output"),
        (["photos", "--track"], "need a video"),
        (["photos", "--every", "0"], "must be at least 1"),
        (["photos", "--output", "empty"], "is a folder; name a file"),
        (["photos", "--server", "localhost:80"], "write it like http://127.0.0.1:8000"),
        (["photos", "--form", "coco"], "did you mean"),
        (["photos", "--server", "http://a", "--model", "m.onnx"], "--model-name chooses one of a"),
        (["photos", "--server", "http://a", "--device", "cpu"], "--model-name chooses one of a"),
        (["photos", "--model-name", "m"], "without one, --model names a file"),
        (["photos", "--model-version", "1"], "without one, --model names a file"),
    ],
)
def test_wrong_usage_says_what_to_do(
    detect: Command, photos: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    code, out, err = detect(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--classes", "zebra"], "no class 'zebra'"),
        (["--confidence", "2"], "less than or equal to 1"),
        (["--model", "no.onnx"], "no.onnx"),
    ],
)
def test_what_the_model_refuses_ends_the_run(
    detect: Command, photos: Path, words: list[str], said: str
) -> None:
    code, out, err = detect(photos, *words)
    assert (code, out) == (1, "")
    assert said in err


def test_a_bad_file_is_skipped_with_its_reason(detect: Command, photos: Path) -> None:
    (photos / "b.png").write_bytes(encode(photo_like(64, 48))[:80])
    code, out, err = detect("photos/a.png", "photos/b.png", "photos/gone.png")
    assert code == 1
    assert [fields["error"] is None for fields in lines(out)] == [True, False, False]
    assert "skipped photos/b.png: the image" in err
    assert "422" not in err
    assert "skipped photos/gone.png: cannot be read: No such file" in err
    assert "3 images (2 of them skipped), " in err


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    running = Server("--model", str(model))
    yield running.url
    running.close()


def test_a_server_finds_the_same(detect: Command, photos: Path, url: str) -> None:
    (photos / "bad.png").write_bytes(b"bad")
    here, there = detect(photos), detect(photos, "--server", url)
    assert here[0] == there[0] == 1
    assert lines(here[1]) == lines(there[1])
    options = ["--confidence", "0.1", "--classes", "red,2", "--nms", "hard", "--no-class-agnostic"]
    here, there = detect(photos, *options), detect(photos, "--server", url, *options)
    assert lines(here[1]) == lines(there[1])


def test_hidden_files_are_left_out_and_dead_links_are_told(detect: Command, photos: Path) -> None:
    for hidden in (photos / "._a.png", photos / ".thumbnails" / "a.png"):
        hidden.parent.mkdir(exist_ok=True)
        hidden.write_bytes(b"bad")
    assert detect(photos)[0] == 0
    assert names(detect("photos/._a.png")[1]) == ["photos/._a.png"]
    (photos / "dead.png").symlink_to("nowhere.png")
    code, _, err = detect(photos)
    assert (code, "skipped dead.png: cannot be read" in err) == (1, True)


def test_one_of_a_servers_models_is_chosen(
    detect: Command, photos: Path, tmp_path: Path, model: Path
) -> None:
    other = tmp_path / "models" / "other" / "2"
    other.mkdir(parents=True)
    (other / "model.onnx").write_bytes(model_file(tmp_path, names=("x", "y", "z")).read_bytes())
    running = Server("--model", str(model), "--models", str(other.parents[1]))
    try:
        asked = ["photos/a.png", "--server", running.url, "--format", "coco"]
        outputs = [detect(*asked, *choice) for choice in ([], ["--model-name", "other"])]
        versioned = detect(*asked, "--model-name", "other", "--model-version", "2")
        unknown = detect(*asked, "--model-name", "otter")
    finally:
        running.close()
    found = [json.loads(out)["categories"] for _, out, _ in outputs]
    assert [[each["name"] for each in categories] for categories in found] == [
        list(NAMES),
        ["x", "y", "z"],
    ]
    assert json.loads(versioned[1])["annotations"] == json.loads(outputs[1][1])["annotations"]
    assert (unknown[0], unknown[1]) == (1, "")
    assert "otter" in unknown[2]


def test_standard_error_is_quiet_where_nobody_sees_the_bar(detect: Command, photos: Path) -> None:
    _, _, err = detect(photos / "a.png")
    assert err.startswith("1 image, ")
    assert err.count("\n") == 1


def test_a_server_that_is_not_there_ends_the_run(
    detect: Command, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_client, "RetryPolicy", partial(RetryPolicy, max_tries=2))
    code, out, err = detect(photos, "--server", "http://127.0.0.1:9")
    assert (code, out) == (1, "")
    assert "no answer from http://127.0.0.1:9" in err


def test_without_httpx2_a_server_cannot_be_asked(
    detect: Command, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "yolox_client.async_client",
        "yolox_client.client",
        "yolox_client.transport.wire",
        "yolox_serve.detect.finders.remote",
    ):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "httpx2", None)
    assert detect(photos)[0] == 0
    code, _, err = detect(photos, "--server", "http://127.0.0.1:9")
    assert code == 1
    assert "pip install 'yolox-serve[detect]'" in err


def test_json_is_as_in_the_servers_answers(detect: Command, photos: Path) -> None:
    _, out, _ = detect(photos, "--format", "json")
    by_line = lines(detect(photos)[1])
    assert json.loads(out) == {"results": by_line}
    _, _, _ = detect(photos, "-o", "out.json")
    assert json.loads(Path("out.json").read_text()) == {"results": by_line}


def test_csv_has_a_row_for_each_object(detect: Command, photos: Path) -> None:
    detect(photos, "--output", "out.csv")
    rows = list(csv.DictReader(io.StringIO(Path("out.csv").read_text())))
    found = [each for fields in lines(detect(photos)[1]) for each in fields["detections"]]
    assert [float(row["x2"]) for row in rows] == [each["box"]["x2"] for each in found]
    assert {row["filename"] for row in rows} == {"a.png", "b.png", "more/c.png"}


def test_coco_is_a_dataset(detect: Command, photos: Path) -> None:
    (photos / "bad.png").write_bytes(b"bad")
    detect(photos, "--format", "coco", "--output", "out.json")
    dataset = json.loads(Path("out.json").read_text())
    assert [image["file_name"] for image in dataset["images"]] == ["a.png", "b.png", "more/c.png"]
    assert dataset["categories"] == [{"id": at, "name": name} for at, name in enumerate(NAMES)]
    ids = [each["id"] for each in dataset["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    assert {each["image_id"] for each in dataset["annotations"]} == {1, 2, 3}


def test_coco_has_cocos_own_ids(
    detect: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Classes 0, 1, 2 of this model are COCO's categories 90, 1 and 67.
    names = ("toothbrush", "person", "dining table")
    monkeypatch.setenv("YOLOX_MODEL", str(model_file(tmp_path, names=names)))
    _, out, _ = detect("photos/a.png", "--format", "coco")
    dataset = json.loads(out)
    assert [category["id"] for category in dataset["categories"]] == [90, 1, 67]
    assert {each["category_id"] for each in dataset["annotations"]} <= {90, 1, 67}


def test_yolo_is_a_file_for_each_image(detect: Command, photos: Path) -> None:
    _, out, _ = detect(photos)
    assert detect(photos, "--format", "yolo", "--output", "labels")[0] == 0
    written = sorted(path.relative_to("labels").as_posix() for path in Path("labels").rglob("*.*"))
    assert written == ["a.txt", "b.txt", "classes.txt", "more/c.txt"]
    rows = Path("labels/a.txt").read_text().splitlines()
    first = lines(out)[0]["detections"][0]
    assert len(rows) == len(lines(out)[0]["detections"])
    values = [float(value) for value in rows[0].split()]
    assert values[1] == pytest.approx((first["box"]["x1"] + first["box"]["x2"]) / 2 / 64, abs=1e-5)
    assert Path("labels/classes.txt").read_text().split() == list(NAMES)


def test_yolo_labels_stay_in_their_folder_and_never_overwrite_each_other(
    detect: Command, photos: Path
) -> None:
    assert (
        detect("../" + str(photos.relative_to(photos.parents[1])), "--format", "yolo", "-o", "l")[0]
        == 0
    )
    assert detect(photos / "a.png", "--format", "yolo", "-o", "inner")[0] == 0
    assert [path.name for path in Path("inner").rglob("a.txt")] == ["a.txt"]
    (photos / "a.jpg").write_bytes(plain())
    code, _, err = detect(photos, "--format", "yolo", "-o", "twice")
    assert code == 2
    assert "several images are named a" in err


def test_labelstudio_gets_tasks_with_predictions(detect: Command, photos: Path) -> None:
    detect(photos, "--format", "labelstudio", "--output", "tasks.json")
    tasks = json.loads(Path("tasks.json").read_text())
    assert [task["data"]["image"] for task in tasks][2] == "/data/local-files/?d=more/c.png"
    region = tasks[0]["predictions"][0]["result"][0]
    assert region["type"] == "rectanglelabels"
    assert 0 <= region["value"]["x"] <= 100
    assert region["value"]["rectanglelabels"][0] in NAMES
    assert (region["original_width"], region["original_height"]) == (64, 48)
    assert tasks[0]["predictions"][0]["model_version"] == "tiny"
    assert json.loads(detect(photos, "--format", "labelstudio")[1]) == tasks


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "coco", "labelstudio"])
def test_a_run_without_a_good_image_is_written_well(
    detect: Command, tmp_path: Path, form: str
) -> None:
    (tmp_path / "bad.png").write_bytes(b"bad")
    code, out, _ = detect("bad.png", "--format", form)
    assert code == 1
    if form != "csv":
        assert all(json.loads(line) is not None for line in [out.strip()])


def test_pictures_are_saved_with_boxes(detect: Command, photos: Path) -> None:
    detect(photos, "--save-images", "drawn")
    for name in ("a.png", "more/c.png"):
        before, after = Image.open(photos / name), Image.open(Path("drawn", name))
        assert before.size == after.size
        assert (np.asarray(before) != np.asarray(after)).any()


def test_a_run_that_broke_off_goes_on(detect: Command, photos: Path, model: Path) -> None:
    detect(photos, "--output", "whole.jsonl")
    whole = Path("whole.jsonl").read_text()
    unfinished = Path("out.jsonl.unfinished.jsonl")
    detect("photos", "--output", "out.jsonl")
    assert not unfinished.exists()
    job = {"format": "jsonl", "every": 1, "server": None, "model": str(model), "options": {}}
    first, second, _ = whole.splitlines()
    marked = json.loads(first) | {"width": 999}
    torn = second[:40]
    unfinished.write_text(f"{json.dumps(job)}\n{json.dumps(marked)}\n{torn}")
    Path("out.jsonl").unlink()

    code, _, err = detect(photos, "--output", "out.jsonl")
    assert code == 2
    assert "add --resume to go on with it" in err
    code, _, err = detect(photos, "--output", "out.jsonl", "--resume", "--confidence", "0.9")
    assert (code, "another options" in err) == (2, True)

    assert detect(photos, "--output", "out.jsonl", "--resume")[0] == 0
    results = lines(Path("out.jsonl").read_text())
    assert results[0]["width"] == 999, "it was not looked into again"
    assert results[1:] == lines(whole)[1:]
    assert not unfinished.exists()


def begun(path: Path, folder: Path, model: Path, **found_by: str) -> Path:
    """The file of a run that broke off, whose head says what found the objects."""
    job = {"format": "jsonl", "every": 1, "server": None, "model": str(model), "options": {}}
    head = job | ({"found_by": found_by} if found_by else {})
    path.write_text(f"{json.dumps(head)}\n")
    return path


def test_a_run_keeps_what_finds_the_objects_in_the_head_of_its_file(
    detect: Command, photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "remove", lambda self: None)
    detect("photos", "--output", "out.jsonl")
    head = json.loads(Path("out.jsonl.unfinished.jsonl").read_text().splitlines()[0])
    assert head["found_by"] == {
        "name": "tiny",
        "version": "1",
        "provider": CPU,
        "precision": "f32",
        "digest": model_digest(model),
    }
    assert begun_with(Path("out.jsonl.unfinished.jsonl")) == head["found_by"]


@pytest.mark.parametrize(
    ("found_by", "said"),
    [
        ({"name": "tiny", "version": "0"}, "begun with tiny version 0"),
        ({"name": "tiny", "version": "1", "digest": "ab" * 32}, "tiny version 1 (abababababab)"),
        ({"provider": "OpenVINO"}, "begun with OpenVINO, and this would go on with CPUExec"),
        ({"provider": CPU, "precision": "bf16"}, "begun with bf16"),
    ],
)
def test_a_run_does_not_go_on_with_another_model_or_engine(
    detect: Command, photos: Path, model: Path, found_by: dict[str, str], said: str
) -> None:
    kept = begun(Path("out.jsonl.unfinished.jsonl"), photos, model, **found_by)
    before = kept.read_text()
    code, _, err = detect("photos", "--output", "out.jsonl", "--resume")
    assert (code, err.count("\n")) == (2, 1)
    assert said in err
    assert "or remove the file to begin anew" in err
    assert kept.read_text() == before


def test_a_run_goes_on_with_the_engine_that_began_it(
    detect: Command, photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLOX_DEVICE", "auto")
    monkeypatch.setattr("service.engine.choose._quickest_on_cpu", lambda _: pytest.fail("measured"))
    begun(Path("out.jsonl.unfinished.jsonl"), photos, model, provider=CPU)
    assert detect("photos", "--output", "out.jsonl", "--resume")[0] == 0
    assert len(lines(Path("out.jsonl").read_text())) == 3


def test_an_older_file_says_by_its_records_what_found_them(tmp_path: Path, model: Path) -> None:
    kept = begun(tmp_path / "kept.jsonl", tmp_path, model)
    assert begun_with(kept) == {}
    found_by = {"name": "tiny", "version": "1", "provider": CPU}
    kept.write_text(kept.read_text() + json.dumps({"filename": "a.png", "model": found_by}) + "\n")
    assert begun_with(kept) == found_by
    with pytest.raises(SourceError, match="begun with tiny version 1"):
        Journal(kept, {}, found_by | {"version": "2"}, resume=True)
    with Journal(kept, {}, found_by | {"digest": "ab"}, resume=True) as journal:
        assert journal.path == kept


def test_the_loss_of_the_server_says_how_to_go_on(
    detect: Command, photos: Path, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    monkeypatch.setattr(async_client, "RetryPolicy", partial(RetryPolicy, max_tries=1))
    begun(Path("out.jsonl.unfinished.jsonl"), photos, model)
    words = ["photos", "--server", "http://127.0.0.1:9", "--output", "out.jsonl", "--resume"]
    code, _, err = detect(*words)
    assert code == 1
    assert "the same command with --resume goes on from here" in err


def test_ctrl_c_keeps_what_is_done(model: Path, tmp_path: Path) -> None:
    for number in range(1500):
        (tmp_path / f"{number:04d}.png").write_bytes(plain(number % 250))
    command = [sys.executable, "-m", "yolox_serve", "detect", str(tmp_path), "--device", "cpu"]
    output, kept = tmp_path / "out.csv", tmp_path / "out.csv.unfinished.jsonl"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "YOLOX_MODEL": str(model)}
    running = subprocess.Popen(
        [*command, "--output", str(output)], env=environment, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 60
    while time.monotonic() < end and not (kept.exists() and kept.stat().st_size > 5000):
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "the same command with --resume goes on from here" in err
    done = kept.read_text().splitlines()
    assert 1 < len(done) < 1501
    assert not output.exists()


def test_a_video_gives_its_frames(detect: Command, video: Path) -> None:
    code, out, _ = detect(video, "--every", "4")
    assert (code, [fields["frame"] for fields in lines(out)]) == (0, [0, 4, 8])
    assert [fields["time_s"] for fields in lines(out)] == [0.0, 0.4, 0.8]
    assert all(fields["detections"] for fields in lines(out))
    assert len(lines(detect("clip.avi", "--max-frames", "2")[1])) == 2


def test_frames_become_pictures_and_a_video(detect: Command, video: Path) -> None:
    detect("clip.avi", "--every", "3", "--save-images", "frames", "--save-video", "out/drawn.mp4")
    assert sorted(path.name for path in Path("frames").iterdir()) == [
        "clip_000000.jpg",
        "clip_000003.jpg",
        "clip_000006.jpg",
    ]
    written = cv2.VideoCapture("out/drawn.mp4")
    assert written.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert written.get(cv2.CAP_PROP_FPS) == pytest.approx(10 / 3, abs=0.1)
    _, out, _ = detect("clip.avi", "--every", "3", "--format", "coco")
    assert json.loads(out)["images"][1]["file_name"] == "clip_000003.jpg"


def test_a_video_goes_on_where_it_broke_off(detect: Command, video: Path, model: Path) -> None:
    detect("clip.avi", "--output", "whole.jsonl")
    whole = Path("whole.jsonl").read_text()
    job = {"format": "jsonl", "every": 1, "server": None, "model": str(model), "options": {}}
    begun = "\n".join([json.dumps(job), *whole.splitlines()[:4], ""])
    Path("out.jsonl.unfinished.jsonl").write_text(begun)
    assert detect("clip.avi", "--output", "out.jsonl", "--resume")[0] == 0
    assert Path("out.jsonl").read_text() == whole


def test_a_video_that_cannot_be_opened_is_skipped(detect: Command, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    code, out, err = detect("broken.mp4")
    assert code == 1
    assert "skipped broken.mp4: cannot open the video" in err
    assert lines(out)[0]["error"]["title"] == "Unreadable file"


class Camera:
    """Gives the same frame three times; says nothing sensible about itself."""

    opened: Any = None

    def __init__(self) -> None:
        self._left = 3

    def open(self, address: object) -> bool:
        Camera.opened = address
        return True

    def get(self, _: int) -> float:
        return 0.0

    def grab(self) -> bool:
        self._left -= 1
        return self._left >= 0

    def retrieve(self) -> tuple[bool, Any]:
        return True, photo_like(64, 48)

    def release(self) -> None:
        pass


@pytest.mark.parametrize(
    ("source", "address", "name"),
    [("0", 0, "camera-0"), ("rtsp://me:secret@cam/1", "rtsp://me:secret@cam/1", "cam/1")],
)
def test_a_camera_or_stream_is_looked_into(
    detect: Command, monkeypatch: pytest.MonkeyPatch, source: str, address: Any, name: str
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    code, out, err = detect(source)
    assert (code, names(out)) == (0, [name] * 3)
    assert Camera.opened == address
    assert "secret" not in out + err


def test_objects_are_followed_through_a_video(detect: Command, tmp_path: Path) -> None:
    path = tmp_path / "still.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for _ in range(6):
        writer.write(photo_like(64, 48))
    writer.release()
    pytest.importorskip("trackers", reason="make installs it for the tests")
    code, out, _ = detect(path, "--track", "--nms", "hard", "--max-detections", "1")
    assert code == 0
    tracks = [fields["detections"][0].get("track_id") for fields in lines(out)]
    assert tracks[0] is None
    assert len(set(tracks[1:])) == 1
    assert tracks[1] is not None


def test_without_the_extra_tracking_says_how_to_get_it(
    detect: Command, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    code, _, err = detect(video, "--track")
    assert code == 2
    assert "pip install 'yolox-serve[track]'" in err


def test_a_reader_that_goes_away_needs_no_words(model: Path, photos: Path) -> None:
    command = f"{sys.executable} -m yolox_serve detect photos photos/*.png --device cpu | true"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "YOLOX_MODEL": str(model)}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=photos.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
