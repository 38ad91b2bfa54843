"""`evaluate` reads every form that training reads, and measures the same on each."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from model_export.__main__ import main
from model_export.measure.evaluate import Found
from support.data_forms import FORMS, IMAGES, NAMES, photo


class Knowing:
    """A detector that knows each photo by its bytes, and takes every bird for a cat."""

    def __init__(self, folder: Path) -> None:
        self._boxes = {photo(folder / name).read_bytes(): boxes for name, boxes in IMAGES.items()}

    def class_names(self) -> tuple[str, ...]:
        return NAMES

    def detect(self, image: bytes) -> Sequence[Found]:
        return [
            Found("cat" if box.name == "bird" else box.name, 0.9, tuple(map(float, box[1:])))
            for box in self._boxes[image]
        ]


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, float]]:
    """Run `evaluate` with arguments; returns the AP overall and of each class."""

    @contextmanager
    def detector(*_: object) -> Iterator[Knowing]:
        yield Knowing(tmp_path / "known")

    monkeypatch.setattr("model_export.commands.evaluate._detector", detector)

    def run(*arguments: str | Path) -> dict[str, float]:
        output = tmp_path / "metrics.json"
        given = ["evaluate", *map(str, arguments), "--model", "x", "--metrics", str(output)]
        assert main(given) == 0
        content = json.loads(output.read_text())
        return {"AP": content["overall"]["AP"], **content["ap_by_class"]}

    return run


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_figures(
    name: str, tmp_path: Path, measured: Callable[..., dict[str, float]]
) -> None:
    found = measured("--data", FORMS[name](tmp_path / "data"), "--split", "train")
    # Segments and shares of the size are rounded.
    assert found["dog"] == pytest.approx(1, abs=0.01)
    assert found["bird"] == 0


def test_classes_may_count_as_one(
    tmp_path: Path, measured: Callable[..., dict[str, float]]
) -> None:
    data = FORMS["voc_side_by_side"](tmp_path / "data")
    assert measured("--data", data, "--split", "train", "--single-class") == {
        "AP": pytest.approx(1),
        "object": 1,
    }


def test_file_of_the_old_name_is_read(
    tmp_path: Path, measured: Callable[..., dict[str, float]]
) -> None:
    data = FORMS["coco_beside"](tmp_path / "data")
    assert measured("--annotations", data, "--images", data.parent)["dog"] == pytest.approx(1)


def test_split_that_is_lacking_is_named_with_the_option_of_this_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = FORMS["voc_side_by_side"](tmp_path / "data")
    assert main(["evaluate", "--model", "x", "--data", str(data)]) == 1
    said = capsys.readouterr().err
    assert "has no split val (it has train): name one with --split" in said


def test_data_are_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--model", "x"]) == 2
    assert "this needs --data" in capsys.readouterr().err
