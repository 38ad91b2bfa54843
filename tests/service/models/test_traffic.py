"""Traffic that versions share, and a shadow whose answers are only compared."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.build import load_first
from service.core.decode import Detections
from service.models.folder.traffic import Traffic, read_traffic
from service.models.shadow import Agreement, compare
from service.settings import Settings
from support.client import as_raw, metric
from support.model_files import NAMES
from support.repositories import write_garbage, write_version
from support.served_models import PHOTO, Served, repository, until


def set_traffic(folder: Path, **traffic: Any) -> None:
    (folder / "cats" / "traffic.json").write_text(json.dumps(traffic))


@pytest.fixture
def two(tmp_path: Path) -> Path:
    write_version(tmp_path, "cats", "1")
    write_version(tmp_path, "cats", "2", logit=-4)
    return tmp_path


def test_versions_share_requests_by_weight(two: Path) -> None:
    set_traffic(two, versions={"1": 90, "2": 10})
    random.seed(1)
    with repository(two) as served:
        shares = {
            each["version"]: each["share"] for each in served.client.get("/models").json()["models"]
        }
        assert shares == {"1": 0.9, "2": 0.1}
        picked = Counter(served.models.pick().version for _ in range(2000))
        assert 150 <= picked["2"] <= 250
        assert {served.answer()[1] for _ in range(60)} == {"1", "2"}
        assert served.answer("?version=2") == ("cats", "2")


def test_an_older_version_can_be_kept_as_the_only_one(two: Path) -> None:
    set_traffic(two, versions={"1": 1})
    with repository(two) as served:
        assert served.answer() == ("cats", "1")
        (two / "cats" / "traffic.json").unlink()
        served.call("refresh")
        assert served.answer() == ("cats", "2")


@pytest.mark.parametrize(
    ("traffic", "told"),
    [
        ({"versions": {"1": 0}}, "above 0"),
        ({"canary": "2"}, "canary"),
    ],
)
def test_a_traffic_file_that_makes_no_sense_changes_nothing_and_is_told(
    two: Path, traffic: dict[str, Any], told: str
) -> None:
    set_traffic(two, versions={"1": 1})
    with repository(two) as served:
        set_traffic(two, **traffic)
        served.call("refresh")
        assert served.answer() == ("cats", "1")
        assert told in served.reason("cats", "1")


@pytest.mark.parametrize(
    ("traffic", "serves", "told"),
    [
        ({"versions": {"1": 90, "7": 10}}, "1", "there is no version 7; there are 1, 2"),
        ({"versions": {"7": 1}}, "2", "there is no version 7"),
        ({"versions": {"1": 1, "2": 0}}, "1", "the weight of version 2 must be a number above 0"),
        ({"versions": {"1": 1}, "canary": "2"}, "1", "unknown field 'canary'"),
    ],
)
def test_what_can_be_used_of_a_traffic_file_is_used_also_after_a_restart(
    two: Path, traffic: dict[str, Any], serves: str, told: str
) -> None:
    set_traffic(two, versions={"1": 1})
    with repository(two) as served:
        set_traffic(two, **traffic)
        served.call("refresh")
        assert served.answer() == ("cats", serves)
        assert told in served.reason("cats", serves)
    with repository(two) as served:
        assert served.answer() == ("cats", serves)
        assert told in served.reason("cats", serves)


def test_a_start_without_the_chosen_version_takes_another_chosen_one(two: Path) -> None:
    write_garbage(two, "cats", "3")
    set_traffic(two, versions={"1": 1, "3": 1})
    assert load_first(Settings(models=two, device="cpu"))[0].version == "1"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is empty; remove it, or write JSON into it"),
        ('{"versions":\n {"1": 1', "it is not valid JSON; look at line 2, column 9"),
        ("[" * 100_000, "too many brackets"),
        ('{"versions": {"1": 1' + "0" * 5000 + "}}", "a number too long"),
        ("[]", 'it must be a JSON object such as {"versions": {"2": 90, "3": 10}}'),
        ('{"versions": [1]}', "versions must hold a weight for each version"),
        ('{"versions": {"1": 1e308, "2": 1e308}}', "at most 1,000,000,000, and is 1e+308"),
        ('{"versions": {"1": NaN}}', "above 0 and at most 1,000,000,000, and is NaN"),
        ('{"shadow": 3}', 'shadow must be one version, in quotes, such as "3"'),
        ('{"shadow_share": 2}', "shadow_share must be a number above 0 and at most 1"),
        ('{"canary": "2"}', "unknown field 'canary'; the fields are versions, shadow"),
        ('{"versions": {"1": 1}, "shadow": "1"}', "version 1 cannot be the shadow"),
        ('{"versions": {"3": 1, "4": 1}}', "there is no version 3 or 4; there are 1, 2"),
    ],
)
def test_a_wrong_traffic_file_is_told_in_plain_words(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "traffic.json"
    file.write_text(text)
    _, problem = read_traffic(file, ["1", "2"])
    assert problem.startswith(f"{file}: ")
    assert told in problem


def test_a_traffic_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    file = tmp_path / "traffic.json"
    assert read_traffic(file, ["1"]) == (Traffic(), "")
    file.symlink_to("nowhere")
    assert read_traffic(file, ["1"]) == (None, f"{file} is a link to nothing")
    file.unlink()
    file.mkdir()
    assert read_traffic(file, ["1"]) == (None, f"{file} cannot be read: Is a directory")


def test_a_shadow_that_would_have_to_answer_is_told_and_answers(tmp_path: Path) -> None:
    file = tmp_path / "traffic.json"
    file.write_text('{"shadow": "2"}')
    traffic, problem = read_traffic(file, ["1", "2"])
    assert traffic is not None
    assert (traffic.among(["1", "2"]).versions, problem) == ({"1": 1}, "")
    traffic, problem = read_traffic(file, ["2"])
    assert traffic is not None
    assert traffic.among(["2"]) == Traffic(versions={"2": 1})
    assert "version 2 cannot be the shadow" in problem


def shadow_count(served: Served, outcome: str) -> float:
    line = f'yolox_shadow_images_total{{model="cats",outcome="{outcome}",version="2"}}'
    return metric(served.client, line)


def boxes(served: Served, outcome: str) -> float:
    line = f'yolox_shadow_boxes_total{{model="cats",outcome="{outcome}",version="2"}}'
    return metric(served.client, line)


def test_a_shadow_sees_images_and_answers_none(two: Path) -> None:
    set_traffic(two, shadow="2")
    with repository(two) as served:
        assert served.answer() == ("cats", "1")
        until(lambda: shadow_count(served, "compared") == 1)
        found = len(as_raw(served.client, PHOTO).json()["results"][0]["detections"])
        until(lambda: shadow_count(served, "compared") == 2)
        assert boxes(served, "matched") == 2 * found > 0
        assert boxes(served, "missing") == boxes(served, "extra") == 0
        for of in ("primary", "shadow"):
            line = f'yolox_shadow_duration_seconds_count{{of="{of}",version="2"}}'
            assert metric(served.client, line) == 2


def test_a_shadow_of_other_classes_is_compared_by_their_names(tmp_path: Path) -> None:
    write_version(tmp_path, "cats", "1")
    others = tuple(f"other {name}" for name in NAMES)
    write_version(tmp_path, "cats", "2", names=others)
    set_traffic(tmp_path, shadow="2")
    with repository(tmp_path) as served:
        found = as_raw(served.client, PHOTO).json()["results"][0]["detections"]
        until(lambda: shadow_count(served, "compared") == 1)
        until(lambda: boxes(served, "extra") == len(found))
        assert boxes(served, "missing") == len(found) > 0
        assert boxes(served, "matched") == 0


def test_a_shadow_that_finds_nothing_misses_every_box(tmp_path: Path) -> None:
    write_version(tmp_path, "cats", "1")
    write_version(tmp_path, "cats", "2", logit=-30)
    set_traffic(tmp_path, shadow="2")
    with repository(tmp_path) as served:
        found = len(as_raw(served.client, PHOTO).json()["results"][0]["detections"])
        until(lambda: shadow_count(served, "compared") == 1)
        assert boxes(served, "missing") == found > 0
        assert boxes(served, "matched") == 0


def test_a_sample_is_seen_and_a_busy_queue_is_left_alone(two: Path) -> None:
    set_traffic(two, shadow="2", shadow_share=0.01)
    random.seed(3)
    with repository(two) as served:
        for _ in range(30):
            served.answer()
        assert shadow_count(served, "compared") <= 3
    set_traffic(two, shadow="2")
    with repository(two) as served:
        with served.client.app.running.pipeline.admit_image():  # type: ignore[attr-defined]
            assert served.answer() == ("cats", "1")
        assert shadow_count(served, "dropped") == 1
        assert shadow_count(served, "compared") == 0


def found_in(boxes_xyxy: list[list[float]], class_ids: list[int]) -> Detections:
    scores = np.full(len(class_ids), 0.9, np.float32)
    boxes = np.array(boxes_xyxy, np.float32).reshape(-1, 4)
    return Detections(boxes, scores, scores, np.array(class_ids, np.int64), scores)


def test_boxes_match_by_class_name_and_overlap_once_each() -> None:
    names, others = ("cat", "dog"), ("dog", "cat")
    primary = found_in([[0, 0, 10, 10], [20, 20, 30, 30]], [0, 1])
    same = found_in([[1, 0, 11, 10], [20, 20, 30, 30]], [1, 0])
    assert compare(primary, names, same, others) == Agreement(2, 0, 0)
    twice = found_in([[0, 0, 10, 10], [0, 0, 10, 10]], [1, 1])
    assert compare(primary, names, twice, others) == Agreement(1, 1, 1)
    assert compare(primary, names, found_in([], []), others) == Agreement(0, 2, 0)
    assert compare(found_in([], []), names, same, others) == Agreement(0, 0, 2)
