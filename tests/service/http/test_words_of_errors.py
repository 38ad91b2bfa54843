"""A refusal says which part was wrong, and how to send it instead."""

import base64
import gzip
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from support.client import PNG, as_json, as_raw, problem, serving
from support.engines import FakeEngine
from support.pictures import plain

IMAGE = base64.b64encode(plain()).decode()
FLAGS = ("class_agnostic", "normalized")
NUMBERS = ("confidence", "iou", "sigma", "max_detections", "timeout_ms")


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving() as client:
        yield client


def sent_json(client: TestClient, **fields: Any) -> Any:
    return client.post("/detect", json={"images": [IMAGE]} | fields)


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("option", NUMBERS)
def test_a_flag_is_no_number(client: TestClient, option: str, value: bool) -> None:
    detail = problem(sent_json(client, **{option: value}), 422, "invalid-option")
    assert detail == f"{option}: must be a number, not true or false"


@pytest.mark.parametrize("value", [0, 1, 1.0])
@pytest.mark.parametrize("option", FLAGS)
def test_a_number_is_no_flag(client: TestClient, option: str, value: float) -> None:
    detail = problem(sent_json(client, **{option: value}), 422, "invalid-option")
    assert detail == f"{option}: must be true or false"


@pytest.mark.parametrize("value", [True, [True], ["cat", False]])
def test_a_flag_is_no_class(client: TestClient, value: object) -> None:
    assert "classes" in problem(sent_json(client, classes=value), 422, "invalid-option")


@pytest.mark.parametrize("value", ["1", "0", "true", "False", "on"])
def test_a_query_has_flags_and_numbers_as_text(client: TestClient, value: str) -> None:
    query = f"?normalized={value}&class_agnostic={value}&confidence=1&max_detections=1"
    assert as_raw(client, plain(), query).status_code == 200


@pytest.mark.parametrize(("option", "value"), [(NUMBERS[0], True), (FLAGS[0], 1)])
def test_the_protocol_tells_flags_from_numbers(
    client: TestClient, option: str, value: object
) -> None:
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [IMAGE]}
    body = {"inputs": [image], "parameters": {option: value}}
    name = client.get("/model").json()["contract"]["name"]
    response = client.post(f"/v2/models/{name}/infer", json=body)
    assert response.status_code == 400
    assert "must be" in response.json()["error"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("confidence=0,5", "confidence: must be a number, with a point before its decimals"),
        ("iou=high", "iou: must be a number"),
        ("normalized=2", "normalized: must be true or false"),
        ("class_agnostic=perhaps", "class_agnostic: must be true or false"),
        ("max_detections=1.5", "max_detections: must be a whole number"),
        ("timeout_ms=5s", "timeout_ms: must be a whole number"),
        ("classes=Cat", "no class 'Cat'; did you mean cat? GET /model lists"),
        ("classes=dgo1", "no class 'dgo1'; GET /model lists"),
    ],
)
def test_an_option_that_cannot_be_read_says_what_it_takes(
    client: TestClient, query: str, said: str
) -> None:
    assert said in problem(as_raw(client, plain(), f"?{query}"), 422, "invalid-option")


def test_a_request_without_an_image_says_how_to_send_one(client: TestClient) -> None:
    for response in (client.post("/detect"), client.post("/detect", json={"images": []})):
        detail = problem(response, 400, "malformed-request")
        assert "send the bytes of one as the body" in detail


@pytest.mark.parametrize("url", ["https://example.org/a.jpg", "HTTP://a/b.png", "s3://photos/a"])
def test_a_url_in_the_place_of_an_image_is_not_fetched(client: TestClient, url: str) -> None:
    answer = client.post("/detect", json={"images": [url]})
    assert "URLs are not fetched; send the bytes" in problem(answer, 422, "invalid-image")
    form = client.post("/detect", data={"images": url}, files={"submit": (None, "x")})
    assert "URLs are not fetched" in problem(form, 400, "malformed-request")


def test_a_url_as_a_body_is_named(client: TestClient) -> None:
    detail = problem(as_raw(client, b"https://example.org/a.jpg\n"), 415, "unsupported-type")
    assert "a URL, which the server does not fetch" in detail


@pytest.mark.parametrize(
    "content", [plain(), gzip.compress(plain())[:-30]], ids=["not compressed", "cut off"]
)
def test_what_is_not_compressed_as_it_says_is_told_in_plain_words(
    client: TestClient, content: bytes
) -> None:
    headers = PNG | {"Content-Encoding": "gzip"}
    detail = problem(
        client.post("/detect", content=content, headers=headers), 400, "malformed-request"
    )
    assert "Error -3" not in detail
    assert "zlib" not in detail
    assert "compressed" in detail


@pytest.mark.parametrize("send", [as_raw, as_json])
def test_a_deadline_says_how_to_get_more_time(send: Any) -> None:
    engine = FakeEngine()
    with serving(engine) as client:
        engine.gate.clear()
        detail = problem(send(client, plain(), "?timeout_ms=1"), 504, "deadline-passed")
    # Either the request's time or the image's is over first.
    assert "give it more than timeout_ms=1" in detail or "give the request more time" in detail


def test_the_answers_to_get_are_had_by_head(client: TestClient) -> None:
    paths = [
        path
        for path, methods in client.get("/openapi.json").json()["paths"].items()
        if "get" in methods and "{" not in path
    ]
    assert {"/model", "/models", "/metrics", "/v2", "/v2/health/ready"} <= set(paths)
    name = client.get("/model").json()["contract"]["name"]
    for path in [*paths, "/", "/docs", "/openapi.json", f"/v2/models/{name}/ready"]:
        assert client.head(path).status_code == client.get(path).status_code, path


def test_head_needs_the_key_too_and_other_methods_are_refused() -> None:
    with serving(api_key="s3cret") as client:
        assert client.head("/model").status_code == 401
        assert client.head("/model", headers={"X-API-Key": "s3cret"}).status_code == 200
        for path in ("/model", "/metrics", "/health/live", "/v2/health/live"):
            refused = client.post(path)
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        assert client.head("/detect").headers["allow"] == "POST"
