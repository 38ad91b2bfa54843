"""Detection in data sets, less Ray: the list, the worker, the results, and how runs go on."""

import io
import json
from pathlib import Path

import pytest

from service.settings import Settings
from support.model_files import model_file
from support.onnx_models import tiny_yolox_model
from support.pictures import plain
from support.project import ROOT
from yolox_client import Detection, ImageResult, UnusableImageError
from yolox_client.results import Box
from yolox_serve.detect.sources import SourceError

pa = pytest.importorskip("pyarrow", reason="pyarrow, of the extra `ray`, is not installed")

from pyarrow import parquet  # noqa: E402 - after the line that skips
from pyarrow.fs import FileSystem, LocalFileSystem  # noqa: E402

from yolox_serve.cluster.dataset.coco_file import write_coco  # noqa: E402
from yolox_serve.cluster.dataset.command import (  # noqa: E402
    WorkChoice,
    actors_for,
    detect_dataset,
    uri_of,
)
from yolox_serve.cluster.dataset.job import DatasetJob, begin, input_files, spare_cpus  # noqa: E402
from yolox_serve.cluster.dataset.listing import images_below, write_list  # noqa: E402
from yolox_serve.cluster.dataset.results import summarise  # noqa: E402
from yolox_serve.cluster.dataset.rows import result_of, table_of  # noqa: E402
from yolox_serve.cluster.dataset.worker import DetectionWorker  # noqa: E402

FILES = LocalFileSystem()
PICTURE = plain(width=64, height=48, image_format="JPEG")
FOUND = Detection(Box(1.0, 2.0, 31.0, 42.0), 0.5, 0.6, 0.8, 1, "dog")
GOOD = ImageResult("a.jpg", 64, 48, (FOUND,))
EMPTY = ImageResult("b.jpg", 32, 32)
BAD = ImageResult("c.jpg", 0, 0, error=UnusableImageError("cannot be read"))


def job_of(tmp_path: Path, **changed: object) -> DatasetJob:
    values = {
        "source": (tmp_path / "in").as_uri(),
        "output": (tmp_path / "out").as_uri(),
        "column": None,
        "actors": 1,
        "cpus": 1.0,
        "gpus": 0.0,
        "batch": 4,
        "block": 10,
        "settings": Settings(),
        "options": {"confidence": 0.5},
    }
    return DatasetJob(**(values | changed))  # type: ignore[arg-type] # of several types


def write_results(folder: Path, *results: ImageResult) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, result in enumerate(results):
        parquet.write_table(
            table_of([str(result.filename)], [result]), folder / f"{number}.parquet"
        )


def test_images_of_all_folders_are_listed_once_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "deep/er/c.webp", "notes.txt", "deep/video.mp4"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert sorted(images_below(FILES, str(tmp_path / "in"))) == ["a.png", "b.JPG", "deep/er/c.webp"]


def test_a_list_that_is_whole_is_not_made_again(tmp_path: Path) -> None:
    folder = str(tmp_path / "list")
    assert write_list(iter(["a.jpg", "b.jpg"]), FILES, folder) == 2
    assert write_list(iter(["other.jpg"]), FILES, folder) == 2
    assert parquet.read_table(folder + "/000000.parquet")["filename"].to_pylist() == [
        "a.jpg",
        "b.jpg",
    ]


def test_a_list_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    folder = str(tmp_path / "list")
    write_list(iter(["a.jpg", "b.jpg"]), FILES, folder)
    (tmp_path / "list" / "_whole").unlink()
    assert write_list(iter(["c.jpg"]), FILES, folder) == 1
    assert parquet.read_table(folder + "/000000.parquet")["filename"].to_pylist() == ["c.jpg"]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(SourceError, match="nothing to look into"):
        input_files(job_of(tmp_path))


def test_results_come_back_from_their_rows_as_they_were() -> None:
    good, empty, bad = table_of(["a.jpg", "b.jpg", "c.jpg"], [GOOD, EMPTY, BAD]).to_pylist()
    assert result_of(good) == GOOD
    assert result_of(empty) == EMPTY
    assert result_of(bad) is None
    assert bad["error"] == "cannot be read"


def test_coco_numbers_images_and_objects_over_all_files(tmp_path: Path) -> None:
    again = ImageResult("d.jpg", 64, 48, (FOUND, FOUND))
    write_results(tmp_path / "results", GOOD, BAD, EMPTY, again)
    out = io.StringIO()
    write_coco(FILES, str(tmp_path / "results"), ["person", "dog"], out)
    dataset = json.loads(out.getvalue())
    assert [(each["id"], each["file_name"]) for each in dataset["images"]] == [
        (1, "a.jpg"),
        (2, "b.jpg"),
        (3, "d.jpg"),
    ]
    annotations = dataset["annotations"]
    assert [(each["id"], each["image_id"]) for each in annotations] == [(1, 1), (2, 3), (3, 3)]
    assert annotations[0]["bbox"] == [1.0, 2.0, 30.0, 40.0]
    # Both names are COCO's, so the ids are, too.
    assert annotations[0]["category_id"] == 18
    assert dataset["categories"] == [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]


def test_coco_of_no_results_is_a_dataset_without_images(tmp_path: Path) -> None:
    out = io.StringIO()
    write_coco(FILES, str(tmp_path), ["qr_code"], out)
    dataset = json.loads(out.getvalue())
    assert (dataset["images"], dataset["annotations"]) == ([], [])


def test_a_summary_counts_images_objects_and_those_that_could_not_be_used(tmp_path: Path) -> None:
    write_results(tmp_path, GOOD, EMPTY, BAD)
    found = summarise(FILES, str(tmp_path))
    assert (found.images, found.failed, found.detections) == (3, 1, 1)


def test_a_run_is_gone_on_with_only_if_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    job = job_of(tmp_path)
    begin(job, resume=False)
    with pytest.raises(SourceError, match="--resume"):
        begin(job, resume=False)
    begin(job, resume=True)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"options": {"confidence": 0.1}}, "options"),
        ({"source": ROOT.as_uri()}, "source"),
        ({"settings": Settings(model=Path("other.onnx"))}, "model"),
    ],
)
def test_a_run_with_other_boxes_is_not_gone_on_with(
    tmp_path: Path, changed: dict[str, object], named: str
) -> None:
    (tmp_path / "in").mkdir()
    begin(job_of(tmp_path), resume=False)
    with pytest.raises(SourceError, match=f"another {named}"):
        begin(job_of(tmp_path, **changed), resume=True)


def test_the_worker_finds_objects_in_files_and_tells_why_one_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(PICTURE)
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    model = model_file(tmp_path, tiny_yolox_model())
    settings = Settings(model=model, device="cpu", engine_instances=1, engine_threads=1)
    worker = DetectionWorker(settings, {}, tmp_path.as_uri(), None)
    names = ["good.jpg", "torn.jpg", "missing.jpg"]
    good, torn, missing = worker(pa.table({"filename": names})).to_pylist()
    assert (good["width"], good["height"], good["error"]) == (64, 48, None)
    assert torn["width"] is None
    assert torn["error"]
    assert "cannot be read" in missing["error"]


def test_the_worker_takes_images_from_a_column(tmp_path: Path) -> None:
    model = model_file(tmp_path, tiny_yolox_model())
    settings = Settings(model=model, device="cpu", engine_instances=1, engine_threads=1)
    worker = DetectionWorker(settings, {}, None, "image")
    rows = pa.table({"filename": ["a", "b"], "image": [PICTURE, None]})
    good, absent = worker(rows).to_pylist()
    assert (good["filename"], good["width"]) == ("a", 64)
    assert absent["error"] == "cannot be read: the row holds no image"


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "spare", "actors"),
    [
        ({"CPU": 3.0}, 1.0, 0.0, 1, 2),
        ({"CPU": 4.0}, 1.0, 0.0, 2, 2),
        ({"CPU": 33.0}, 4.0, 0.0, 1, 8),
        ({"CPU": 33.0, "GPU": 2.0}, 1.0, 0.5, 1, 4),
        ({"CPU": 3.0, "GPU": 8.0}, 1.0, 0.5, 1, 2),
    ],
)
def test_actors_leave_cpus_to_the_tasks_of_ray(
    resources: dict[str, float], cpus: float, gpus: float, spare: int, actors: int, tmp_path: Path
) -> None:
    job = job_of(tmp_path, actors=0, cpus=cpus, gpus=gpus)
    assert actors_for(resources, job, spare) == actors


def test_a_run_that_goes_on_needs_one_more_cpu_beside_the_actors(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    assert spare_cpus(job) == 1
    (tmp_path / "out" / "checkpoint").mkdir(parents=True)
    assert spare_cpus(job) == 1
    (tmp_path / "out" / "checkpoint" / "0.parquet").touch()
    assert spare_cpus(job) == 2


def test_a_cluster_without_room_for_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="CPU=8, GPU=0"):
        actors_for({"CPU": 8.0}, job_of(tmp_path, actors=0, gpus=0.5), 1)


def test_more_actors_than_there_is_room_for_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert actors_for({"CPU": 8.0}, job_of(tmp_path, actors=7), 1) == 7
    assert capsys.readouterr().err == ""
    assert actors_for({"CPU": 8.0}, job_of(tmp_path, actors=8), 1) == 8
    assert "CPU=8, GPU=0, too little for 8 processes" in capsys.readouterr().err


def test_paths_become_uris_and_uris_stay(tmp_path: Path) -> None:
    assert uri_of(str(tmp_path)) == tmp_path.as_uri()
    assert uri_of("s3://bucket/photos/") == "s3://bucket/photos"
    filesystem, folder = FileSystem.from_uri(uri_of(str(tmp_path / "a b")))
    assert (type(filesystem), folder) == (LocalFileSystem, str(tmp_path / "a b"))


@pytest.mark.parametrize(
    ("work", "named"),
    [
        (WorkChoice(batch=0), "--batch"),
        (WorkChoice(actors=0), "--actors"),
        (WorkChoice(cpus=0.0), "--cpus"),
        (WorkChoice(cpus=float("nan")), "--cpus"),
        (WorkChoice(gpus=-1.0), "--gpus"),
    ],
    ids=["no batch", "no actors", "no CPU", "CPUs that are no number", "gpus below 0"],
)
def test_work_that_cannot_be_done_is_wrong_usage(
    work: WorkChoice, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    assert detect_dataset(str(tmp_path / "in"), str(tmp_path / "out"), work=work) == 2
    assert named in capsys.readouterr().err


def test_a_source_that_is_not_there_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = detect_dataset(str(tmp_path / "missing"), str(tmp_path / "out"))
    assert code == 2
    assert str(tmp_path / "missing") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
