"""The answer in the forms of other tools."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from support.client import PNG, boxes, problem, serving
from support.engines import CONTRACT, FakeEngine
from support.pictures import plain

# Sides of the picture, and the fake engine's box in it.
WIDTH, HEIGHT = 128, 64
IMAGE = plain(0, width=WIDTH, height=HEIGHT)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving() as client:
        yield client


def ask(client: TestClient, **options: Any) -> Any:
    return client.post("/detect", content=IMAGE, headers=PNG, params=options)


@pytest.fixture(scope="module")
def corners(client: TestClient) -> list[float]:
    ((found,),) = boxes(ask(client))
    assert list(found["box"]) == ["x1", "y1", "x2", "y2"]
    return list(found["box"].values())


def converted(corners: list[float], form: str) -> dict[str, float]:
    x1, y1, x2, y2 = corners
    size = {"width": x2 - x1, "height": y2 - y1}
    return {
        "xyxy": {"x1": x1, "y1": y1, "x2": x2, "y2": y2},
        "xywh": {"x": x1, "y": y1} | size,
        "cxcywh": {"cx": (x1 + x2) / 2, "cy": (y1 + y2) / 2} | size,
    }[form]


@pytest.mark.parametrize("form", ["xyxy", "xywh", "cxcywh"])
@pytest.mark.parametrize("normalized", [False, True])
def test_boxes_may_be_asked_for_in_each_form(
    client: TestClient, corners: list[float], form: str, normalized: bool
) -> None:
    ((found,),) = boxes(ask(client, boxes=form, normalized=normalized))
    expected = converted(corners, form)
    sides = [WIDTH, HEIGHT] * 2 if normalized else [1] * 4
    assert list(found["box"]) == list(expected)
    scaled = [value / side for value, side in zip(expected.values(), sides, strict=True)]
    tolerance = 1e-4 if normalized else 0.011
    assert list(found["box"].values()) == pytest.approx(scaled, abs=tolerance)


def test_the_default_answer_is_the_one_with_every_default_spelt_out(client: TestClient) -> None:
    plain_answer, spelt = ask(client), ask(client, format="json", boxes="xyxy", normalized=False)
    assert plain_answer.json()["results"] == spelt.json()["results"]


def test_a_coco_answer_is_a_dataset_with_its_errors(
    client: TestClient, corners: list[float]
) -> None:
    files = [
        ("images", ("good.png", IMAGE)),
        ("images", ("bad", b"text")),
        ("images", ("2", IMAGE)),
    ]
    answer = client.post("/detect?format=coco", files=files).json()
    assert [image["id"] for image in answer["images"]] == [0, 2]
    assert answer["images"][0] == {
        "id": 0, "file_name": "good.png", "width": WIDTH, "height": HEIGHT
    }  # fmt: skip
    assert answer["categories"] == [
        {"id": number, "name": name} for number, name in enumerate(("cat", "dog", "owl"))
    ]
    assert [error["image_id"] for error in answer["errors"]] == [1]
    assert answer["errors"][0]["status"] == 415
    first, second = answer["annotations"]
    assert (first["id"], first["image_id"], second["id"], second["image_id"]) == (1, 0, 2, 2)
    assert first["bbox"] == pytest.approx(list(converted(corners, "xywh").values()), abs=0.011)
    assert first["area"] == pytest.approx(first["bbox"][2] * first["bbox"][3], abs=0.01)
    assert (first["category_id"], first["iscrowd"]) == (1, 0)
    assert first["score"] == pytest.approx(0.999665, abs=1e-6)


def test_coco_tools_read_the_answer(client: TestClient) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="the extra `evaluate` is not installed")
    dataset = coco.COCO()
    dataset.dataset = ask(client, format="coco").json()
    dataset.createIndex()
    results = dataset.loadRes(dataset.dataset["annotations"])
    assert results.getAnnIds() == [1]


def test_a_yolo_answer_is_a_line_for_each_object(client: TestClient, corners: list[float]) -> None:
    response = ask(client, format="yolo")
    assert response.headers["content-type"].startswith("text/plain")
    (line,) = response.text.splitlines()
    class_id, *numbers = line.split(" ")
    assert class_id == "1"
    fractions = np.array(list(converted(corners, "cxcywh").values())) / ([WIDTH, HEIGHT] * 2)
    assert [float(number) for number in numbers] == pytest.approx([*fractions, 0.999665], abs=1e-4)
    assert ask(client, format="yolo", classes="cat").text == ""


def test_yolo_labels_of_several_images_are_told_apart(client: TestClient) -> None:
    names = ("a b.png", "evil\n0 0 0 1 1 1.png", "bad")
    files = [("images", (name, IMAGE)) for name in names[:2]] + [("images", ("bad", b"text"))]
    lines = client.post("/detect?format=yolo", files=files).text.splitlines()
    comments = [line for line in lines if line.startswith("#")]
    assert [line.split()[1] for line in comments] == ["0", "1", "2"]
    assert "415" in comments[2]
    assert len(lines) == 5, "three comments, and a label for each of two images"


@pytest.mark.parametrize(
    "options", [{"format": "xml"}, {"boxes": "yxyx"}, {"normalized": "perhaps"}]
)
def test_an_unknown_form_is_422(client: TestClient, options: dict[str, str]) -> None:
    assert next(iter(options)) in problem(ask(client, **options), 422, "invalid-option")


def test_a_form_may_be_asked_for_in_the_body_too(client: TestClient) -> None:
    files = {"images": ("a", IMAGE)}
    answer = client.post("/detect", files=files, data={"format": "coco"}).json()
    assert len(answer["annotations"]) == 1


def test_cocos_classes_have_cocos_own_ids() -> None:
    names = ("toothbrush", "person", "dining table")
    with serving(FakeEngine(replace(CONTRACT, class_names=names))) as client:
        answer = ask(client, format="coco").json()
    assert [category["id"] for category in answer["categories"]] == [90, 1, 67]
    # The fake engine always finds class 1.
    assert answer["annotations"][0]["category_id"] == 1


LABELS = "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("text/plain", LABELS),
        ("text/*", LABELS),
        ("*/*", LABELS),
        ("text/plain;q=0.5, image/png;q=0.4", LABELS),
        ("image/png, text/plain;q=0.5", "image/png"),
        ("text/html,*/*;q=0.8", LABELS),
    ],
)
def test_accept_is_judged_by_what_the_format_gives(
    client: TestClient, accept: str, content_type: str
) -> None:
    query = client.post("/detect?format=yolo", content=IMAGE, headers=PNG | {"Accept": accept})
    assert query.headers["content-type"] == content_type
    form = client.post(
        "/detect",
        data={"format": "yolo"},
        files={"images": ("a.png", IMAGE)},
        headers={"Accept": accept},
    )
    assert form.headers["content-type"] == content_type


@pytest.mark.parametrize(
    ("form", "accept", "hint"),
    [
        ("yolo", "application/json", "format=json gives application/json"),
        ("json", "text/plain", "format=yolo gives text/plain"),
        ("coco", "text/plain", "format=yolo gives text/plain"),
    ],
)
def test_a_type_of_another_format_is_406_and_names_that_format(
    client: TestClient, form: str, accept: str, hint: str
) -> None:
    headers = PNG | {"Accept": accept}
    response = client.post(f"/detect?format={form}", content=IMAGE, headers=headers)
    assert hint in problem(response, 406, "not-acceptable")
