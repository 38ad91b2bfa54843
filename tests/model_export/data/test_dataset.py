"""Data sets as they lie on disk become samples, and faults in them become clear errors."""

import argparse
import json
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model_export.commands import preview
from model_export.data.annotations import read_annotations, read_coco, read_voc
from model_export.data.examples import Examples, check_images
from model_export.data.image_files import ImageCache, image_size, read_image
from model_export.errors import ModelExportError
from model_export.report.sheets import with_boxes
from model_export.samples.batches import BatchPlan
from model_export.samples.geometry import Picture, blank
from model_export.samples.recipe import Augmentation, Recipe
from model_export.training.dataset import Batch, TrainingSamples, training_batches
from support.pictures import encode, photo_like

Box = tuple[float, float, float, float]
TURNED_LEFT = 6  # EXIF: shown after a quarter turn clockwise


def coco_json(folder: Path, annotations: list[dict[str, object]], count: int = 2) -> Path:
    """A COCO json and its images, 60 x 40 pixels each, named 0.png, 1.png and so on."""
    for i in range(count):
        (folder / f"{i}.png").write_bytes(encode(photo_like(60, 40, seed=i)))
    content = {
        "images": [
            {"id": 10 + i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in range(count)
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
        "annotations": annotations,
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def annotation(
    image: int, category: int, x: float, y: float, w: float, h: float
) -> dict[str, object]:
    return {"image_id": image, "category_id": category, "bbox": [x, y, w, h]}


def voc_folder(root: Path, objects: dict[str, list[tuple[str, Box]]]) -> Path:
    """A VOC folder whose split `train` has these images, 60 x 40 pixels each."""
    for name in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (root / name).mkdir(parents=True)
    for stem, boxes in objects.items():
        (root / "JPEGImages" / f"{stem}.jpg").write_bytes(encode(photo_like(60, 40), "JPEG"))
        (root / "Annotations" / f"{stem}.xml").write_text(voc_xml(boxes))
    (root / "ImageSets/Main/train.txt").write_text("".join(f"{stem}\n" for stem in objects))
    return root


def voc_xml(boxes: list[tuple[str, Box]]) -> str:
    corners = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{key}>{value}</{key}>" for key, value in zip(corners, box, strict=True))
        + "</bndbox></object>"
        for name, box in boxes
    )
    size = "<size><width>60</width><height>40</height></size>"
    return f"<annotation>{size}{objects}</annotation>"


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    """Six small images with a box each."""
    path = coco_json(tmp_path, [annotation(10 + i, 4, 5 * i, 4, 20, 30) for i in range(6)], count=6)
    return Examples(check_images(read_coco(path, tmp_path)))


def batches_of(examples: Examples, workers: int, method: str | None = None) -> list[Batch]:
    return list(batches_from(examples, workers, method))


def batches_from(
    examples: Examples, workers: int, method: str | None = None
) -> Generator[Batch, None, None]:
    samples = TrainingSamples(examples, Augmentation(mosaic_probability=0.7), seed=5)
    plan = BatchPlan(len(examples), 4, 3, 1, 64, 64, multiscale_steps=1, seed=5)
    context = multiprocessing.get_context(method) if method else None
    return training_batches(samples, plan, workers=workers, context=context)


# BCCD: the numbers of the data set's own description.


@pytest.mark.parametrize(
    ("split", "images", "counts", "zero_size"),
    [
        ("train", 205, {"RBC": 2381, "WBC": 214, "Platelets": 209}, "BloodImage_00343.jpg"),
        ("val", 87, {"RBC": 967, "WBC": 87, "Platelets": 83}, "BloodImage_00338.jpg"),
        ("test", 72, {"RBC": 805, "WBC": 71, "Platelets": 69}, None),
    ],
)
def test_both_forms_of_bccd_are_the_same_data(
    shared_data: Path, split: str, images: int, counts: dict[str, int], zero_size: str | None
) -> None:
    root = shared_data / "bccd"
    coco = check_images(read_annotations(root / f"{split}.json", root / "BCCD" / "JPEGImages"))
    names = coco.class_names
    voc = check_images(read_annotations(root / "BCCD", split=split, class_names=names))

    assert names == ("RBC", "WBC", "Platelets")
    assert len(coco.images) == len(voc.images) == images
    for data in (coco, voc):
        ids = np.concatenate([image.class_ids for image in data.images])
        assert dict(zip(names, np.bincount(ids).tolist(), strict=True)) == counts
    assert coco.dropped == ()
    assert [box.path.name for box in voc.dropped] == ([zero_size] if zero_size else [])
    by_name = {image.path.name: image for image in voc.images}
    for image in coco.images:
        np.testing.assert_array_equal(by_name[image.path.name].boxes_xyxy, image.boxes_xyxy)


def test_crowds_of_coco_are_counted_and_left_out(shared_data: Path) -> None:
    folder = shared_data / "coco-subset"
    data = check_images(read_coco(folder / "instances_all.json", folder / "images"))
    assert (len(data.images), len(data.class_names), data.crowd) == (194, 80, 16)
    assert sum(len(image.boxes_xyxy) for image in data.images) == 1585 - 16


# COCO


def test_coco_classes_are_numbered_in_the_order_of_their_ids(tmp_path: Path) -> None:
    path = coco_json(
        tmp_path, [annotation(10, 9, 1, 2, 3, 4), {**annotation(11, 4, 0, 0, 9, 9), "iscrowd": 1}]
    )

    data = read_coco(path, tmp_path)

    assert data.class_names == ("cat", "dog")
    assert [image.image_id for image in data.images] == [10, 11]
    assert data.images[0].class_ids.tolist() == [1]
    np.testing.assert_array_equal(data.images[0].boxes_xyxy, [[1, 2, 4, 6]])
    assert data.images[1].boxes_xyxy.shape == (0, 4)
    assert data.crowd == 1


def test_coco_classes_can_be_numbered_as_another_set_does(tmp_path: Path) -> None:
    path = coco_json(tmp_path, [annotation(10, 9, 1, 2, 3, 4)])
    assert read_coco(path, tmp_path, class_names=["dog"]).images[0].class_ids.tolist() == [0]
    with pytest.raises(ModelExportError, match="classes beyond the model's: dog"):
        read_coco(path, tmp_path, class_names=["cat"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("not json", "no COCO annotation file"),
        ("[]", "no COCO annotation file"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "no images"),
    ],
)
def test_a_file_that_is_no_coco_set_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ModelExportError, match=rf"a\.json .*{complaint}"):
        read_coco(path, tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        annotation(99, 4, 0, 0, 5, 5),
        annotation(10, 99, 0, 0, 5, 5),
        {"image_id": 10, "category_id": 4, "bbox": [1, 2, 3]},
        {"image_id": 10, "category_id": 4, "bbox": ["one", 2, 3, 4]},
    ],
)
def test_coco_annotations_that_refer_to_nothing_are_refused(
    tmp_path: Path, wrong: dict[str, object]
) -> None:
    with pytest.raises(ModelExportError, match=r"annotations\.json"):
        read_coco(coco_json(tmp_path, [wrong]), tmp_path)


def test_two_coco_images_of_one_id_are_refused(tmp_path: Path) -> None:
    path = coco_json(tmp_path, [annotation(10, 4, 0, 0, 5, 5)])
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"images": content["images"] * 2}))
    with pytest.raises(ModelExportError, match="two images have the id 10"):
        read_coco(path, tmp_path)


# VOC


def test_voc_corners_are_taken_as_written(tmp_path: Path) -> None:
    root = voc_folder(
        tmp_path, {"b": [("dog", (1, 2.5, 30, 40)), ("cat", (0, 0, 60, 40))], "a": []}
    )

    data = read_voc(root)

    assert data.class_names == ("cat", "dog")
    assert [image.path.name for image in data.images] == ["b.jpg", "a.jpg"]
    assert data.images[0].class_ids.tolist() == [1, 0]
    np.testing.assert_array_equal(data.images[0].boxes_xyxy, [[1, 2.5, 30, 40], [0, 0, 60, 40]])


def test_voc_lists_of_one_class_are_read_too(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": [("dog", (0, 0, 9, 9))], "b": []})
    (root / "ImageSets/Main/dog_val.txt").write_text("a  1\nb -1\n\n")
    assert [image.path.stem for image in read_voc(root, "dog_val").images] == ["a", "b"]


def test_a_voc_image_may_be_named_like_a_mark(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"photo 1": [("dog", (0, 0, 9, 9))], "b": []})
    assert [image.path.stem for image in read_voc(root).images] == ["photo 1", "b"]


@pytest.mark.parametrize(
    ("xml", "complaint"),
    [
        ("<annotation>", r"a\.xml is no VOC annotation"),
        (voc_xml([("", (0, 0, 9, 9))]), r"a\.xml.*an object has no name"),
        (voc_xml([("dog", (0, 0, 9, 9))]).replace("xmax", "x"), r"a\.xml.*no bndbox/xmax"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', r"a\.xml.*DTD"),
    ],
)
def test_a_broken_voc_annotation_is_named(tmp_path: Path, xml: str, complaint: str) -> None:
    root = voc_folder(tmp_path, {"a": []})
    (root / "Annotations/a.xml").write_text(xml)
    with pytest.raises(ModelExportError, match=complaint):
        read_voc(root)


def test_a_voc_split_or_annotation_that_is_missing_is_named(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": [("dog", (0, 0, 9, 9))]})
    with pytest.raises(ModelExportError, match="split val"):
        read_voc(root, "val")
    (root / "Annotations/a.xml").unlink()
    with pytest.raises(ModelExportError, match=r"a\.xml"):
        read_voc(root)


# Boxes and images that are no good


def test_degenerate_boxes_are_dropped_and_reported_and_others_clipped(tmp_path: Path) -> None:
    entries = [
        annotation(10, 4, -5, -5, 20, 20),
        annotation(10, 4, 10, 10, 0, 5),
        annotation(10, 9, 10, 10, 5, -5),
        annotation(10, 9, 60, 0, 10, 10),
        annotation(11, 4, float("nan"), 0, 10, 10),
    ]
    data = check_images(read_coco(coco_json(tmp_path, entries), tmp_path))

    np.testing.assert_array_equal(data.images[0].boxes_xyxy, [[0, 0, 15, 15]])
    assert data.images[0].class_ids.tolist() == [0]
    assert data.images[1].boxes_xyxy.shape == (0, 4)
    reasons = ["has no area"] * 2 + ["is outside of the image", "has no area"]
    assert [box.reason for box in data.dropped] == reasons
    report = "\n".join(data.report())
    assert "2 images (1 without boxes), 1 boxes" in report
    assert "boxes that cannot be targets: 4" in report
    assert "0.png: dog [60.0, 0.0, 70.0, 10.0] is outside of the image" in report


def test_every_unfit_image_is_named_at_once(tmp_path: Path) -> None:
    path = coco_json(tmp_path, [], count=5)
    (tmp_path / "0.png").unlink()
    (tmp_path / "1.png").write_bytes(b"no image")
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    (tmp_path / "2.png").write_bytes(encode(noise, "JPEG")[:-300])
    (tmp_path / "3.png").write_bytes(encode(photo_like(61, 40)))
    done = []

    with pytest.raises(ModelExportError, match="4 of 5 images") as caught:
        check_images(read_coco(path, tmp_path), lambda: done.append(1))

    text = str(caught.value)
    assert "0.png: it is missing" in text
    assert "1.png: this is no image of an accepted type" in text
    assert "2.png: the image cannot be decoded" in text
    assert "3.png is 61 x 40 pixels the right way up, and its annotations are for 60 x 40" in text
    assert "4.png" not in text
    assert len(done) == 5


def test_a_message_about_many_images_stays_readable(tmp_path: Path) -> None:
    path = coco_json(tmp_path, [], count=30)
    for image in tmp_path.glob("*.png"):
        image.unlink()
    with pytest.raises(ModelExportError, match="30 of 30") as caught:
        check_images(read_coco(path, tmp_path))
    assert str(caught.value).count("is missing") == 10
    assert "and 20 more" in str(caught.value)


def test_photos_are_read_the_right_way_up(tmp_path: Path) -> None:
    path = coco_json(tmp_path, [annotation(10, 4, 0, 0, 60, 40)], count=1)
    exif = Image.Exif()
    exif[0x0112] = TURNED_LEFT
    sideways = photo_like(40, 60)
    (tmp_path / "0.png").write_bytes(encode(sideways, "JPEG", quality=95, exif=exif))

    picture = Examples(check_images(read_coco(path, tmp_path)))[0]

    assert picture.image.shape == (40, 60, 3)
    upright = np.rot90(sideways, k=-1)[:, :, ::-1]
    assert np.abs(picture.image.astype(int) - upright).mean() < 4


def test_a_turned_tiff_is_as_wide_as_it_is_shown(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = TURNED_LEFT
    path = tmp_path / "a.tif"
    Image.fromarray(photo_like(40, 60)).save(path, exif=exif)
    assert image_size(path) == read_image(path).shape[:2]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_every_kind_of_image_becomes_three_channels(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(photo_like(30, 20)).convert(mode).save(path)
    assert read_image(path).shape == (20, 30, 3)


# The cache


def test_the_cache_gives_the_same_pixels_and_notices_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(photo_like(30, 20)))
    cache = ImageCache(tmp_path / "cache")
    first = cache.read(path)
    with monkeypatch.context() as patch:
        patch.setattr("model_export.data.image_files.read_image", None)
        np.testing.assert_array_equal(cache.read(path), first)
    assert [entry.suffix for entry in cache.folder.iterdir()] == [".npy"]

    path.write_bytes(encode(photo_like(31, 20, seed=1)))

    np.testing.assert_array_equal(cache.read(path), read_image(path))


def whole_entry_without_its_end(entry: Path) -> None:
    entry.write_bytes(entry.read_bytes()[:-1])


def entry_of_no_bytes(entry: Path) -> None:
    entry.write_bytes(b"")


def entry_of_other_values(entry: Path) -> None:
    np.save(entry, np.zeros((20, 30, 3), np.float32))


def entry_in_columns(entry: Path) -> None:
    np.save(entry, np.zeros((20, 30, 3), np.uint8, order="F"))


@pytest.mark.parametrize(
    "damage",
    [whole_entry_without_its_end, entry_of_no_bytes, entry_of_other_values, entry_in_columns],
)
def test_a_damaged_cache_entry_is_made_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(photo_like(30, 20)))
    cache = ImageCache(tmp_path / "cache")
    cache.read(path)
    (entry,) = cache.folder.iterdir()
    damage(entry)
    np.testing.assert_array_equal(cache.read(path), read_image(path))
    np.testing.assert_array_equal(np.load(entry), read_image(path))


def test_cached_pixels_cannot_be_written_to(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(photo_like(30, 20)))
    cache = ImageCache(tmp_path / "cache")
    cache.read(path)
    assert not cache.read(path).flags.writeable


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(photo_like(30, 20)))
    with pytest.raises(ModelExportError, match=r"cannot write the cache .*a\.png"):
        ImageCache(path).read(path)


def test_samples_from_the_cache_are_the_same(examples: Examples, tmp_path: Path) -> None:
    cached = replace(examples, cache=ImageCache(tmp_path / "cache"))
    for _ in range(2):
        for plain, other in zip(batches_of(examples, 0), batches_of(cached, 0), strict=True):
            assert torch.equal(plain.images, other.images)


# Batches and workers


# Newer Pythons warn of every fork of a process with threads, and torch has threads.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize(("workers", "method"), [(1, "fork"), (2, "fork"), (2, "spawn")])
def test_samples_do_not_depend_on_the_workers(
    examples: Examples, workers: int, method: str
) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    expected = batches_of(examples, 0)
    found = batches_of(examples, workers, method)

    assert len(found) == len(expected) == 6
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one.images, other.images)
        assert other.images.stride() == one.images.stride()
        assert torch.equal(one.targets.boxes_xyxy, other.targets.boxes_xyxy)
        assert torch.equal(one.targets.class_ids, other.targets.class_ids)


def test_a_batch_is_of_one_size_and_pads_its_targets(examples: Examples) -> None:
    for batch in batches_of(examples, 0):
        count, channels, height, width = batch.images.shape
        assert (count, channels) == (4, 3)
        assert height == width
        assert height in (32, 64, 96)
        assert batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        boxes, ids = batch.targets
        assert boxes.shape == (*ids.shape, 4)
        assert (ids[:, 0] >= -1).all()
        assert boxes.dtype == torch.float32
        assert ids.dtype == torch.int64
        assert (boxes[ids < 0] == 0).all()
        assert (boxes[ids >= 0][:, 2:] > boxes[ids >= 0][:, :2]).all()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_an_image_that_vanishes_is_named_from_within_a_worker(examples: Examples) -> None:
    path = examples.data.images[3].path
    path.unlink()
    with pytest.raises(ModelExportError) as caught:
        batches_of(examples, 1)
    assert str(caught.value).startswith(f"cannot read the image {path}: ")
    assert "Traceback" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_workers_end_with_an_error_that_somebody_holds_on_to(examples: Examples) -> None:
    others = set(multiprocessing.active_children())

    def fail_on_the_first() -> None:
        with closing(batches_from(examples, 1)) as batches:
            for _ in batches:
                assert set(multiprocessing.active_children()) > others
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fail_on_the_first()
    examples.data.images[3].path.unlink()
    with pytest.raises(ModelExportError) as also_caught:
        batches_of(examples, 1)
    assert set(multiprocessing.active_children()) <= others
    del caught, also_caught


def test_an_image_that_changes_its_size_is_named(examples: Examples) -> None:
    path = examples.data.images[3].path
    path.write_bytes(encode(photo_like(40, 60)))
    with pytest.raises(ModelExportError, match=rf"{path.name} changed"):
        examples[3]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_workers_leave_ctrl_c_to_the_trainer(examples: Examples) -> None:
    samples = TrainingSamples(examples, Augmentation(), seed=0)
    plan = BatchPlan(len(examples), 2, 8, 0, 64, 64)
    batches = training_batches(samples, plan, workers=1)
    next(batches)
    for child in multiprocessing.active_children():
        if child.pid:
            os.kill(child.pid, signal.SIGINT)
    assert sum(1 for _ in batches) == len(plan) - 1


def test_samples_can_be_sent_to_other_processes(examples: Examples) -> None:
    samples = TrainingSamples(examples, Augmentation(), seed=0)
    copy = pickle.loads(pickle.dumps(samples))  # noqa: S301
    recipe = Recipe(1, 0, 64, 64)
    assert torch.equal(copy[recipe].image, samples[recipe].image)


def test_an_epoch_takes_every_image_once_and_then_fills_its_last_batch() -> None:
    plan = BatchPlan(10, 4, 2, 1, 64, 64)
    first, second = np.array_split([recipe for batch in plan for recipe in batch], 2)
    assert sorted(recipe.index for recipe in first[:10]) == list(range(10))
    assert [recipe.index for recipe in first] != [recipe.index for recipe in second]
    assert [recipe.draw for recipe in first] == [0] * 10 + [1] * 2
    assert {(recipe.epoch, recipe.closing) for recipe in first} == {(0, False)}
    assert {(recipe.epoch, recipe.closing) for recipe in second} == {(1, True)}


def test_few_images_fill_a_batch_with_different_samples() -> None:
    (batch,) = BatchPlan(3, 8, 1, 0, 64, 64)
    assert len({(recipe.index, recipe.draw) for recipe in batch}) == 8


@pytest.mark.parametrize("start", [0, 1, 3, 7, 12])
def test_a_resumed_run_takes_the_batches_that_were_left(start: int) -> None:
    plan = BatchPlan(10, 4, 4, 1, 416, 416, multiscale_steps=5, seed=3)
    resumed = replace(plan, start=start)
    assert list(resumed) == list(plan)[start:]
    assert len(resumed) == len(list(resumed)) == 12 - start


def test_processes_together_take_what_one_would() -> None:
    alone = BatchPlan(10, 4, 2, 0, 416, 416, multiscale_steps=5)
    pair = [replace(alone, batch_size=2, processes=2, process=process) for process in (0, 1)]
    joined = [first + second for first, second in zip(*pair, strict=True)]
    assert joined == list(alone)


# The sheet


@pytest.fixture
def parser() -> Iterator[argparse.ArgumentParser]:
    parser = argparse.ArgumentParser()
    preview.add_arguments(parser)
    return parser


def test_a_sheet_shows_every_sample(
    tmp_path: Path, parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    root = voc_folder(tmp_path / "voc", {"a": [("dog", (5, 5, 50, 35))], "b": []})
    output = tmp_path / "sheet.png"
    options = f"--data {root} --output {output} --count 5 --columns 3 --size 96 --mosaic 0.5"

    preview.run(parser.parse_args(options.split()))

    captured = capsys.readouterr()
    assert captured.out == f"{output}\n"
    assert "2 images (1 without boxes), 1 boxes" in captured.err
    with Image.open(output) as image:
        assert image.size == (3 * 100 - 4, 2 * 100 - 4)


def test_a_sheet_that_cannot_be_written_is_an_error(
    tmp_path: Path, parser: argparse.ArgumentParser
) -> None:
    root = voc_folder(tmp_path / "voc", {"a": [("dog", (5, 5, 50, 35))]})
    options = f"--data {root} --output {tmp_path / 'none' / 'sheet.png'} --size 64"
    with pytest.raises(ModelExportError, match="cannot write"):
        preview.run(parser.parse_args(options.split()))


@pytest.mark.parametrize(
    "option", ["--count 0", "--size 100", "--variant huge", "--seed -1", "--multiscale 1"]
)
def test_options_without_a_meaning_are_refused(
    parser: argparse.ArgumentParser, option: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(f"--data a.json --output b.png {option}".split())


def test_a_box_of_less_than_a_pixel_can_be_drawn() -> None:
    boxes = np.array([[10, 40, 10.4, 40.3]], np.float32)
    image = with_boxes(Picture(blank(100, 100), boxes, np.array([0])), [""])
    assert (image[40, 10] != 114).any()


def test_boxes_are_drawn_on_their_outermost_pixels() -> None:
    boxes = np.array([[10, 40, 60, 90]], np.float32)
    image = with_boxes(Picture(blank(100, 100), boxes, np.array([0])), ["a name in no latin: 猫"])
    changed = (image != 114).any(axis=2)
    assert changed[89, 10:60].all()
    assert changed[40:90, 59].all()
    assert not changed[90:].any()
    assert not changed[91, 60:].any()
    assert not changed[:40].any()
