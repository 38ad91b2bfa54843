"""Pictures of shapes: the boxes are those of the pixels, and the files are a data set.

The area of a shape is worked out here in polar coordinates, pixel by pixel, apart from the polygons
that the project draws.
"""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from cyclopts import CycloptsError
from numpy.typing import NDArray

from model_export.commands import demo_data
from model_export.data.checked_images import check_images
from model_export.data.reading import read_annotations
from model_export.drawing import shapes
from model_export.drawing.backdrops import backdrop
from model_export.drawing.demo_data import shapes as subject_of_shapes
from model_export.drawing.demo_data import write_demo_data
from model_export.drawing.shapes import (
    CLASS_NAMES,
    MIN_VISIBLE,
    Shape,
    arrange,
    draw_scene,
    visible_masks,
)
from model_export.errors import ModelExportError
from support.commands import bound, call

HEIGHT, WIDTH = 96, 128
MARGIN = 64
SCENES = range(24)
CORNERS = {"square": 4, "triangle": 3}

Mask = NDArray[np.bool_]


def filled(shape: Shape, margin: int = 0) -> Mask:
    """The pixels whose middle a shape covers, on a picture with a margin of this many pixels."""
    y, x = np.mgrid[-margin : HEIGHT + margin, -margin : WIDTH + margin] + 0.5
    x, y = x - shape.center_xy[0], y - shape.center_xy[1]
    distance = np.hypot(x, y)
    name = CLASS_NAMES[shape.class_id]
    if name == "circle":
        return np.asarray(distance <= shape.radius)
    # Every side is level with the bottom one after some turns, and stands as far from the middle.
    half = np.pi / CORNERS[name]
    from_below = np.arctan2(y, x) - np.pi / 2 - shape.tilt
    angle = (from_below + half) % (2 * half) - half
    return np.asarray(distance * np.cos(angle) <= shape.radius * np.cos(half))


def grown(mask: Mask) -> Mask:
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)


def shrunk(mask: Mask) -> Mask:
    return ~grown(~mask)


def extent(mask: Mask) -> list[float]:
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def arranged(index: int) -> list[Shape]:
    """The shapes of a scene."""
    return arrange(np.random.default_rng((0, index)), HEIGHT, WIDTH)


@pytest.mark.parametrize("index", SCENES)
def test_boxes_are_tight_round_what_can_be_seen(index: int) -> None:
    picture = draw_scene(0, index, HEIGHT, WIDTH)
    masks = visible_masks(arranged(index), HEIGHT, WIDTH)
    assert picture.boxes_xyxy.tolist() == [extent(mask) for mask in masks]
    assert picture.class_ids.tolist() == [shape.class_id for shape in arranged(index)]
    assert picture.boxes_xyxy.dtype == np.float32
    assert picture.class_ids.dtype == np.int64


@pytest.mark.parametrize("index", SCENES)
def test_a_shape_fills_what_its_form_says(index: int) -> None:
    for shape in arranged(index):
        (mask,) = visible_masks([shape], HEIGHT, WIDTH)
        assert not (mask & ~grown(filled(shape))).any()
        assert not (shrunk(filled(shape)) & ~mask).any()


def test_shapes_in_front_hide_those_behind() -> None:
    behind, front = Shape(1, (50.0, 50.0), 20.0, 0.3), Shape(0, (60.0, 50.0), 15.0, 0.0)
    (alone,), (whole,) = (visible_masks([shape], HEIGHT, WIDTH) for shape in (behind, front))
    first, second = visible_masks([behind, front], HEIGHT, WIDTH)
    assert np.array_equal(second, whole)
    assert np.array_equal(first, alone & ~whole)
    assert (alone & whole).any()


@pytest.mark.parametrize("index", SCENES)
def test_every_annotated_shape_shows_most_of_itself(index: int) -> None:
    scene = arranged(index)
    for shape, mask in zip(scene, visible_masks(scene, HEIGHT, WIDTH), strict=True):
        # Pixels along the outline count for one or for none.
        outline = 2 * np.pi * shape.radius
        assert mask.sum() >= MIN_VISIBLE * filled(shape, MARGIN).sum() - outline / 4


@pytest.mark.parametrize("index", SCENES)
def test_the_picture_differs_from_its_backdrop_where_the_shapes_are(
    index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "MAX_NOISE", 0.0)
    rng = np.random.default_rng((0, index))
    scene = arrange(rng, HEIGHT, WIDTH)
    empty = backdrop(rng, HEIGHT, WIDTH)
    changed = (draw_scene(0, index, HEIGHT, WIDTH).image != empty).any(axis=2)
    masks = visible_masks(scene, HEIGHT, WIDTH)
    assert not (changed & ~grown(np.any([*masks, np.zeros_like(changed)], axis=0))).any()
    # The odd pixel of a line behind may have the shape's very colour.
    assert all(changed[mask].mean() > 0.95 for mask in masks)


@pytest.mark.parametrize("index", SCENES)
def test_boxes_lie_within_the_picture(index: int) -> None:
    picture = draw_scene(0, index, HEIGHT, WIDTH)
    assert picture.image.shape == (HEIGHT, WIDTH, 3)
    assert picture.image.dtype == np.uint8
    assert (picture.boxes_xyxy[:, :2] >= 0).all()
    assert (picture.boxes_xyxy[:, 2:] <= (WIDTH, HEIGHT)).all()
    assert (picture.boxes_xyxy[:, 2:] > picture.boxes_xyxy[:, :2]).all()


def test_the_same_numbers_draw_the_same_picture_and_others_another() -> None:
    first, again = (draw_scene(3, 5, HEIGHT, WIDTH) for _ in range(2))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.boxes_xyxy, again.boxes_xyxy)
    for seed, index in ((4, 5), (3, 6)):
        assert not np.array_equal(draw_scene(seed, index, HEIGHT, WIDTH).image, first.image)


@pytest.mark.parametrize("side", [32, 33, 300])
def test_any_size_from_the_least_on_can_be_drawn(side: int) -> None:
    for index in range(4):
        assert draw_scene(1, index, side, side).image.shape == (side, side, 3)


def test_scenes_vary() -> None:
    pictures = [draw_scene(0, index, HEIGHT, WIDTH) for index in range(40)]
    classes = np.concatenate([picture.class_ids for picture in pictures])
    assert (np.bincount(classes, minlength=len(CLASS_NAMES)) >= 15).all()
    assert len({len(picture.class_ids) for picture in pictures}) >= 4


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures to learn from and four to measure with, of 64 x 64 pixels."""
    folder = tmp_path_factory.mktemp("demo") / "new" / "data"
    write_demo_data(folder, subject_of_shapes(64, 2), train=6, val=4)
    return folder


@pytest.mark.parametrize(
    ("split", "numbers"), [("train", range(0, 12, 2)), ("val", range(1, 8, 2))]
)
def test_the_files_read_back_as_the_pictures_drawn(
    data_set: Path, split: str, numbers: range
) -> None:
    data = check_images(read_annotations(data_set / f"{split}.json"))
    assert data.class_names == CLASS_NAMES
    assert data.dropped == ()
    assert data.crowd == 0
    assert len(data.images) == len(numbers)
    pictures = data.pictures(None)
    for place, number in enumerate(numbers):
        picture, drawn = pictures[place], draw_scene(2, number, 64, 64)
        assert np.array_equal(picture.image, drawn.image)
        assert np.array_equal(picture.boxes_xyxy, drawn.boxes_xyxy)
        assert np.array_equal(picture.class_ids, drawn.class_ids)


def test_no_picture_is_in_both_sets(data_set: Path) -> None:
    files = sorted((data_set / "images").iterdir())
    assert len({file.read_bytes() for file in files}) == len(files) == 10


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


def test_the_same_call_writes_the_same_files_and_leaves_others_alone(
    data_set: Path, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.png").write_bytes(b"mine")
    for _ in range(2):
        write_demo_data(tmp_path, subject_of_shapes(64, 2), train=6, val=4)
    assert contents(tmp_path) == contents(data_set) | {Path("images/mine.png"): b"mine"}


@pytest.mark.parametrize("content", [b'{"images": []}', b"\xff\xfe"])
def test_annotations_of_others_are_not_overwritten(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "val.json").write_bytes(content)
    with pytest.raises(ModelExportError, match=r"val\.json belongs to another data set"):
        write_demo_data(tmp_path, subject_of_shapes(64, 0), train=1, val=1)
    assert contents(tmp_path) == {Path("val.json"): content}


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ModelExportError, match=r"cannot write to .*file"):
        write_demo_data(tmp_path / "file", subject_of_shapes(64, 0), train=1, val=1)


def test_the_command_writes_what_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path)
    call(demo_data.run, "--output", folder, "--train", "3", "--val", "2", "--size", "40")
    named = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert named == [tmp_path / "train.json", tmp_path / "val.json"]
    images = [json.loads(path.read_text())["images"] for path in named]
    assert [len(entries) for entries in images] == [3, 2]
    assert images[0][0]["width"] == images[0][0]["height"] == 40


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--train", "-1", "-1 is negative"),
        ("--val", "-1", "-1 is negative"),
        ("--seed", "-1", "-1 is negative"),
        ("--size", "31", "31 is below 32"),
        ("--size", "large", "large is not a whole number"),
    ],
)
def test_the_command_refuses_numbers_that_cannot_be(
    option: str, value: str, complaint: str
) -> None:
    with pytest.raises(CycloptsError, match=complaint):
        bound(demo_data.run, "--output", "x", option, value)


def test_drawing_data_needs_neither_torch_nor_pycocotools() -> None:
    code = (
        "import sys, model_export.commands.demo_data; from model_export.drawing import demo_data; "
        "demo_data.shapes(64, 0); demo_data.barcodes(0); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = set(done.stdout.split())
    assert {"model_export.drawing.shapes", "model_export.drawing.barcodes.scene"} <= names
    assert names.isdisjoint({"torch", "pycocotools", "rich", "onnx", "onnxruntime"})
