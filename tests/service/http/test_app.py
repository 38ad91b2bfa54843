import asyncio
import base64
import io
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import service.pipeline.stages as stages_module
from service.http.answers import DetectResponse
from service.http.app import create_app
from service.pipeline.batched import BatchedPipeline
from service.pipeline.one_thread import OneThreadPipeline
from service.settings import Settings
from support.client import PNG, as_json, as_multipart, as_raw, boxes, metric, problem, serving
from support.engines import CpuEngine, FakeEngine
from support.pictures import plain

# The fake engine's box in a 64 x 64 image of one grey: 8 px high, centred on (12, 12).
TEXT_ONLY_FORM = b'--b\r\nContent-Disposition: form-data; name="iou"\r\n\r\n0.5\r\n--b--\r\n'
GREY_128_BOX = {"x1": 5.99, "y1": 8.0, "x2": 18.01, "y2": 16.0}


@pytest.fixture(params=[FakeEngine, CpuEngine], ids=["in batches", "on one thread"])
def client(request: pytest.FixtureRequest) -> Iterator[TestClient]:
    with serving(request.param(), letterbox="square") as client:
        yield client


def provider(client: TestClient) -> str:
    name = client.app.running.models.default.ref.provider  # type: ignore[attr-defined]
    assert isinstance(name, str)
    return name


FORMS = pytest.mark.parametrize("send", [as_raw, as_multipart, as_json])


@FORMS
def test_every_form_gives_the_same_documented_answer(
    client: TestClient, send: Callable[..., Any]
) -> None:
    response = send(client, plain(128))
    (detection,) = boxes(response)[0]
    assert detection["box"] == pytest.approx(GREY_128_BOX, abs=0.02)
    assert detection["score"] == detection["objectness"] == pytest.approx(0.999665, abs=1e-6)
    assert detection["class_score"] == pytest.approx(0.999665, abs=1e-6)
    assert (detection["class_id"], detection["class_name"]) == (1, "dog")
    body = response.json()
    assert body["model"] == {"name": "fake", "version": "1", "provider": provider(client)}
    assert set(body["timing_ms"]) == {"decode", "queue", "inference", "postprocess", "total"}
    assert body["timing_ms"]["total"] >= body["timing_ms"]["inference"]
    filename = "a.png" if send is as_multipart else None
    assert body["results"][0] | {"detections": []} == {
        "filename": filename,
        "width": 64,
        "height": 64,
        "detections": [],
        "error": None,
    }


def test_an_answer_is_what_the_documentation_says_to_the_byte(client: TestClient) -> None:
    files = [("images", ("good", plain())), ("images", ("bad", b"text"))]
    for response in (as_raw(client, plain()), client.post("/detect", files=files)):
        parsed = DetectResponse.model_validate_json(response.content, strict=True)
        assert parsed.model_dump_json().encode() == response.content


@pytest.mark.parametrize(
    "content_type", ["image/jpeg", "image/x-whatever", "application/octet-stream"]
)
def test_raw_bytes_of_any_image_type_are_taken(client: TestClient, content_type: str) -> None:
    response = client.post("/detect", content=plain(), headers={"Content-Type": content_type})
    assert len(boxes(response)) == 1


@pytest.mark.parametrize("field", ["images", "image", "file"])
def test_multipart_images_may_have_any_of_three_names(client: TestClient, field: str) -> None:
    response = client.post("/detect", files=[(field, ("a", plain())), (field, ("b", plain()))])
    assert [result["filename"] for result in response.json()["results"]] == ["a", "b"]


def test_json_takes_data_uris(client: TestClient) -> None:
    uri = "data:image/png;base64," + base64.b64encode(plain()).decode()
    assert len(boxes(client.post("/detect", json={"images": [uri]}))[0]) == 1


def test_results_keep_the_order_of_the_images(client: TestClient) -> None:
    greys = list(range(0, 250, 25))
    response = client.post("/detect", files=[("images", (str(g), plain(g))) for g in greys])
    widths = [found["box"]["x2"] - found["box"]["x1"] for (found,) in boxes(response)]
    np.testing.assert_allclose(widths, [8 * (1 + grey / 255) for grey in greys], atol=0.05)
    assert [result["filename"] for result in response.json()["results"]] == list(map(str, greys))


def test_boxes_are_in_pixels_of_the_upright_image(client: TestClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (256, 128), (128, 128, 128)).save(buffer, "PNG", exif=exif)
    response = as_raw(client, buffer.getvalue())
    result = response.json()["results"][0]
    assert (result["width"], result["height"]) == (128, 256)
    assert result["detections"][0]["box"]["y1"] == pytest.approx(8 * 4)


def test_corrupt_image_among_good_ones_fails_alone(client: TestClient) -> None:
    good, cut = plain(50), plain(60)[:40]
    response = client.post(
        "/detect",
        files=[("images", ("1", good)), ("images", ("2", cut)), ("images", ("3", b"text")),
               ("images", ("4", good))],
    )  # fmt: skip
    assert [len(found) for found in boxes(response)] == [1, 0, 0, 1]
    errors = [result["error"] for result in response.json()["results"]]
    assert errors[0] is errors[3] is None
    assert errors[1]["status"] == 422
    assert errors[2]["status"] == 415
    assert set(errors[1]) == {"status", "title", "detail"}
    assert metric(client, 'yolox_images_total{outcome="ok"}') == 2
    assert metric(client, 'yolox_images_total{outcome="invalid-image"}') == 1


def test_request_without_one_good_image_fails_as_a_whole(client: TestClient) -> None:
    files = [("images", ("1", b"text")), ("images", ("2", plain()[:40]))]
    detail = problem(client.post("/detect", files=files), 422, "invalid-image")
    assert "none of the 2 images" in detail


@FORMS
def test_corrupt_single_image_is_422_and_the_next_request_works(
    client: TestClient, send: Callable[..., Any]
) -> None:
    problem(send(client, plain()[:40]), 422, "invalid-image")
    assert len(boxes(send(client, plain()))) == 1


def test_what_is_no_image_is_415(client: TestClient) -> None:
    problem(as_raw(client, b"hello, world"), 415, "unsupported-type")


@pytest.mark.parametrize("content_type", ["text/plain", "video/mp4", "image", "multipart/mixed"])
def test_unknown_content_type_is_415(client: TestClient, content_type: str) -> None:
    response = client.post("/detect", content=plain(), headers={"Content-Type": content_type})
    problem(response, 415, "unsupported-type")


@pytest.mark.parametrize(
    "request_args",
    [
        {"content": b"", "headers": PNG},
        {"json": {"images": []}},
        {"json": {}},
        {"json": {"images": "x"}},
        {"json": [1]},
        {"content": b"{", "headers": {"Content-Type": "application/json"}},
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
        {"files": {"photo": ("a.png", b"x")}},
        {"files": {"images": ("", b"")}},
        {"content": TEXT_ONLY_FORM, "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
    ],
)
def test_malformed_or_empty_body_is_400(client: TestClient, request_args: dict[str, Any]) -> None:
    problem(client.post("/detect", **request_args), 400, "malformed-request")
    assert len(boxes(as_raw(client, plain()))) == 1


def test_bad_base64_is_an_invalid_image(client: TestClient) -> None:
    problem(client.post("/detect", json={"images": ["not base64!"]}), 422, "invalid-image")
    problem(client.post("/detect", json={"images": ["data:image/png,x"]}), 422, "invalid-image")


@pytest.mark.parametrize(
    ("query", "culprit"),
    [
        ("confidence=1.5", "confidence"),
        ("confidence=nan", "confidence"),
        ("confidence=high", "confidence"),
        ("iou=-0.1", "iou"),
        ("sigma=0", "sigma"),
        ("sigma=1e-50", "sigma"),
        ("sigma=inf", "sigma"),
        ("nms=magic", "nms"),
        ("score_by=luck", "score_by"),
        ("class_agnostic=perhaps", "class_agnostic"),
        ("max_detections=0", "max_detections"),
        ("max_detections=9999999", "max_detections"),
        ("classes=zebra", "zebra"),
        ("classes=3", "3"),
        ("classes=" + "1" * 5000, "no class"),
        ("timeout_ms=0", "timeout_ms"),
        ("timeout_ms=99999999", "timeout_ms"),
        ("confidense=0.5", "confidense"),
    ],
)
@FORMS
def test_option_out_of_range_is_422_and_named(
    client: TestClient, send: Callable[..., Any], query: str, culprit: str
) -> None:
    assert culprit in problem(send(client, plain(), f"?{query}"), 422, "invalid-option")


@pytest.mark.parametrize("options", [{"confidence": 2}, {"nms": "magic"}, {"confidense": 0.5}])
def test_option_out_of_range_in_a_body_is_422_too(
    client: TestClient, options: dict[str, Any]
) -> None:
    image = base64.b64encode(plain()).decode()
    problem(client.post("/detect", json={"images": [image], **options}), 422, "invalid-option")
    files = {"images": ("a", plain())}
    problem(client.post("/detect", data=options, files=files), 422, "invalid-option")


def test_options_may_travel_in_the_body_and_the_query_wins(client: TestClient) -> None:
    image = base64.b64encode(plain()).decode()
    body = {"images": [image], "classes": ["cat", 2]}
    assert boxes(client.post("/detect", json=body)) == [[]]
    assert len(boxes(client.post("/detect?classes=dog", json=body))[0]) == 1
    files, data = {"images": ("a", plain())}, {"confidence": "0.9999"}
    assert boxes(client.post("/detect", files=files, data=data)) == [[]]
    assert len(boxes(client.post("/detect?confidence=0.5", files=files, data=data))[0]) == 1


@pytest.mark.parametrize(
    ("classes", "count"),
    [("dog", 1), ("1", 1), ("cat,dog", 1), ("cat&classes=1", 1), ("cat", 0), ("owl,0", 0), ("", 1)],
)
def test_classes_are_chosen_by_name_or_id(client: TestClient, classes: str, count: int) -> None:
    assert len(boxes(as_raw(client, plain(), f"?classes={classes}"))[0]) == count


def test_the_last_of_a_repeated_option_counts(client: TestClient) -> None:
    for values, count in ((("0.9999", "0.5"), 1), (("0.5", "0.9999"), 0)):
        query = "?" + "&".join(f"confidence={value}" for value in values)
        assert len(boxes(as_raw(client, plain(), query))[0]) == count


def test_settings_change_the_defaults_and_requests_still_win() -> None:
    with serving(confidence=0.9999) as client:
        assert boxes(as_raw(client, plain())) == [[]]
        assert len(boxes(as_raw(client, plain(), "?confidence=0.9"))[0]) == 1


def test_body_over_the_limit_is_413_by_its_length_or_by_counting() -> None:
    with serving(max_body_bytes=5000) as client:
        big = plain() + b"\0" * 5000
        problem(as_raw(client, big), 413, "too-large")
        chunks = iter([big[:2500], big[2500:]])
        problem(client.post("/detect", content=chunks, headers=PNG), 413, "too-large")
        problem(as_multipart(client, big), 413, "too-large")
        problem(as_json(client, big), 413, "too-large")
        assert len(boxes(as_raw(client, plain()))) == 1


def test_too_many_images_are_413() -> None:
    with serving(max_images_per_request=2) as client:
        files = [("images", (str(i), plain())) for i in range(3)]
        problem(client.post("/detect", files=files), 413, "too-large")
        image = base64.b64encode(plain()).decode()
        problem(client.post("/detect", json={"images": [image] * 3}), 413, "too-large")
        assert len(boxes(client.post("/detect", files=files[:2]))) == 2


def test_image_with_too_many_pixels_is_413() -> None:
    with serving(max_image_pixels=100 * 100) as client:
        problem(as_raw(client, plain(width=101, height=100)), 413, "too-large")
        assert len(boxes(as_raw(client, plain(width=100, height=100)))) == 1


def test_api_key_is_asked_for_where_one_is_set() -> None:
    with serving(api_key="s3cret") as client:
        response = as_raw(client, plain())
        problem(response, 401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"
        for headers in ({"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}):
            problem(client.get("/model", headers=headers), 401, "unauthorized")
        for headers in ({"X-API-Key": "s3cret"}, {"Authorization": "Bearer s3cret"}):
            assert client.get("/model", headers=headers).status_code == 200
            ok = client.post("/detect", content=plain(), headers=PNG | headers)
            assert len(boxes(ok)) == 1
        assert client.get("/health/live").status_code == 200


def test_request_id_is_the_client_s_if_it_is_harmless(client: TestClient) -> None:
    assert (
        client.get("/health/live", headers={"X-Request-ID": "a-1"}).headers["x-request-id"] == "a-1"
    )
    for bad in ("a b", "x" * 200, 'a"b'):
        made = client.get("/health/live", headers={"X-Request-ID": bad}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", made)


@pytest.mark.parametrize("path", ["/health/live", "/nowhere", "/metrics", "/detect"])
def test_every_answer_tells_its_time_and_id(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-request-id"]
    assert re.fullmatch(r"total;dur=[0-9.]+", headers["server-timing"])


def test_server_timing_of_a_detection_has_every_stage(client: TestClient) -> None:
    timing = as_raw(client, plain()).headers["server-timing"]
    stages = [part.split(";")[0] for part in timing.split(", ")]
    assert stages == ["decode", "queue", "inference", "postprocess", "total"]


def test_unknown_path_and_wrong_method_are_problems_too(client: TestClient) -> None:
    problem(client.get("/nowhere"), 404, "not-found")
    response = client.get("/detect")
    problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"


def test_a_bug_is_a_500_without_its_secrets(client: TestClient, monkeypatch: Any) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("the password is swordfish")

    monkeypatch.setattr("service.http.detect.Endpoint._answer", broken)
    detail = problem(as_raw(client, plain()), 500, "internal-error")
    assert "swordfish" not in detail
    assert client.get("/health/live").status_code == 200


def test_model_page_tells_contract_provider_limits_and_defaults(client: TestClient) -> None:
    body = client.get("/model").json()
    assert body["contract"]["class_names"] == ["cat", "dog", "owl"]
    assert body["contract"]["box_coding"] == "yolox"
    assert body["provider"] == provider(client)
    assert body["engine"] == {"provider": provider(client), "precision": "f32", "threads": 1}
    labels = f'{{precision="f32",provider="{provider(client)}",threads="1"}}'
    assert metric(client, f"yolox_engine_info{labels}") == 1
    assert body["device"] == "auto"
    assert body["limits"]["max_images_per_request"] == 32
    assert body["defaults"] == {
        "confidence": 0.5,
        "score_by": "objectness",
        "nms": "soft-mean",
        "iou": 0.45,
        "sigma": 0.5,
        "class_agnostic": True,
        "max_detections": 300,
    }
    assert isinstance(body["defaults"]["max_detections"], int)
    assert set(body["defaults_from"].values()) == {"article", "setting"}


def test_documentation_names_every_option(client: TestClient) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/detect"]["post"]
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert {"confidence", "score_by", "nms", "iou", "sigma", "class_agnostic"} <= names
    assert {"max_detections", "classes", "timeout_ms"} <= names
    assert set(operation["requestBody"]["content"]) == {
        "multipart/form-data", "image/*", "application/octet-stream", "application/json"
    }  # fmt: skip
    assert client.get("/docs").status_code == 200


@pytest.mark.parametrize(("accept", "image_format"), [("image/png", "PNG"), ("image/jpeg", "JPEG")])
def test_a_picture_comes_back_with_the_box_drawn(
    client: TestClient, accept: str, image_format: str
) -> None:
    response = client.post("/detect", content=plain(0), headers=PNG | {"Accept": accept})
    assert response.headers["content-type"] == accept
    picture = Image.open(io.BytesIO(response.content))
    assert picture.format == image_format
    assert picture.size == (64, 64)
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels[16, 12].sum() > 200, "the lower edge of the box"
    assert pixels[40:, 40:].sum() < 2000, "far from the box nothing is drawn"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "application/json"),
        ("application/json, image/png;q=0.5", "application/json"),
        ("image/png;q=0.9, */*;q=0.1", "image/png"),
        ("image/*", "image/png"),
        ("text/html", "application/json"),
        ("image/png;q=oops", "application/json"),
        ("image/png;q=2", "application/json"),
        ("json", "application/json"),
        ("image/webp, */*;q=0.1", "application/json"),
        ("image/webp, image/jpg;q=0.5", "image/jpeg"),
        ("application/json;q=0, *", "image/png"),
        # A form that a browser posts: Chrome's, then Firefox's. Then Java's HttpURLConnection.
        ("text/html,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", "application/json"),
        ("text/html,image/avif,image/webp,image/png,image/svg+xml,*/*;q=0.8", "application/json"),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", "application/json"),
    ],
)
def test_the_preferred_type_is_given(client: TestClient, accept: str, content_type: str) -> None:
    response = client.post("/detect", content=plain(), headers=PNG | {"Accept": accept})
    assert response.headers["content-type"] == content_type


@pytest.mark.parametrize(
    "accept", ["image/webp", "image/avif, image/gif", "text/csv", "image/png;q=0", "*/*;q=0"]
)
def test_a_type_that_there_is_not_is_406_and_says_which_there_are(
    client: TestClient, accept: str
) -> None:
    response = client.post("/detect", content=plain(), headers=PNG | {"Accept": accept})
    detail = problem(response, 406, "not-acceptable")
    assert "application/json, image/png, image/jpeg" in detail


def test_a_picture_of_several_images_is_406(client: TestClient) -> None:
    files = [("images", ("a", plain())), ("images", ("b", plain()))]
    response = client.post("/detect", files=files, headers={"Accept": "image/png"})
    problem(response, 406, "not-acceptable")


class Crowd:
    """Requests under way while the test goes on."""

    def __init__(self, client: TestClient) -> None:
        self._client = client
        self._pool = ThreadPoolExecutor(16)

    def send(self, query: str = "", grey: int = 0) -> Any:
        return self._pool.submit(as_raw, self._client, plain(grey), query)


def wait_until(client: TestClient, line: str, value: float) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if metric(client, line) == value:
            return
        pause.wait(0.01)
    raise AssertionError(f"{line} never became {value}: {metric(client, line)}")


# One batch at a time on either path, however many CPUs there are: `engine_threads` of 1 keeps the
# images of a CPU on one thread each.
ONE_AT_A_TIME = {"engine_instances": 1, "engine_threads": 1}
ONE_BY_ONE = pytest.mark.parametrize(
    "engine", [FakeEngine(max_batch=1), CpuEngine()], ids=["in batches", "on one thread"]
)


def on_expected_path(client: TestClient, engine: FakeEngine) -> bool:
    pipeline = client.app.running.pipeline.run  # type: ignore[attr-defined]
    expected = OneThreadPipeline if isinstance(engine, CpuEngine) else BatchedPipeline
    return isinstance(pipeline, expected)


@ONE_BY_ONE
def test_full_queue_is_503_with_retry_after_at_once(engine: FakeEngine) -> None:
    queue = {"max_queue_images": 2, "max_images_per_request": 2}
    with serving(engine, **queue, **ONE_AT_A_TIME) as client:
        assert on_expected_path(client, engine)
        engine.gate.clear()
        engine.started = threading.Semaphore(0)
        crowd = Crowd(client)
        running = crowd.send()
        assert engine.started.acquire(timeout=10)
        waiting = [crowd.send(), crowd.send()]
        wait_until(client, "yolox_queue_images", 2)
        response = as_raw(client, plain())
        problem(response, 503, "queue-full")
        assert int(response.headers["retry-after"]) >= 1
        engine.gate.set()
        for future in [running, *waiting]:
            assert len(boxes(future.result(timeout=10))) == 1
        assert len(boxes(as_raw(client, plain()))) == 1
        assert metric(client, 'yolox_rejections_total{reason="queue-full"}') == 1
        assert metric(client, "yolox_queue_images") == 0


@ONE_BY_ONE
def test_of_a_request_what_has_no_place_is_refused_and_the_rest_is_answered(
    engine: FakeEngine,
) -> None:
    queue = {"max_queue_images": 2, "max_images_per_request": 2}
    with serving(engine, **queue, **ONE_AT_A_TIME) as client:
        engine.gate.clear()
        engine.started = threading.Semaphore(0)
        crowd = Crowd(client)
        running = crowd.send()
        assert engine.started.acquire(timeout=10)
        waiting = crowd.send()
        wait_until(client, "yolox_queue_images", 1)
        files = [("images", ("a", plain())), ("images", ("b", plain()))]
        split = ThreadPoolExecutor(1).submit(client.post, "/detect", files=files)
        wait_until(client, "yolox_queue_images", 2)
        engine.gate.set()
        response = split.result(timeout=10)
        assert response.status_code == 200
        assert int(response.headers["retry-after"]) >= 1
        placed, refused = response.json()["results"]
        assert (placed["error"], refused["error"]["title"]) == (None, "Queue full")
        assert metric(client, 'yolox_rejections_total{reason="queue-full"}') == 1
        for future in [running, waiting]:
            assert "retry-after" not in future.result(timeout=10).headers


@ONE_BY_ONE
def test_deadline_is_504_and_the_waiting_image_is_dropped(engine: FakeEngine) -> None:
    with serving(engine, **ONE_AT_A_TIME) as client:
        assert on_expected_path(client, engine)
        engine.gate.clear()
        engine.started = threading.Semaphore(0)
        crowd = Crowd(client)
        running = crowd.send()
        assert engine.started.acquire(timeout=10)
        engine.batches.clear()
        problem(as_raw(client, plain(), "?timeout_ms=50"), 504, "deadline-passed")
        engine.gate.set()
        assert running.result(timeout=10).status_code == 200
        assert len(boxes(as_raw(client, plain()))) == 1
        assert engine.batches == [(1, 64, 64, 3)]
        assert metric(client, 'yolox_rejections_total{reason="dropped-deadline-passed"}') == 1
        assert metric(client, 'yolox_images_total{outcome="deadline-passed"}') == 1


@pytest.mark.parametrize("engine", [FakeEngine(), CpuEngine()])
def test_engine_error_is_503_and_repeated_errors_make_the_server_unready(
    engine: FakeEngine,
) -> None:
    with serving(engine) as client:
        assert client.get("/health/ready").json() == {"status": "ready"}
        engine.error = RuntimeError("cuda error 700")
        for _ in range(3):
            response = as_raw(client, plain())
            assert "700" not in problem(response, 503, "model-failed")
            assert response.headers["retry-after"]
        # With those of the probes that a failure leads to.
        told = problem(client.get("/health/ready"), 503, "not-ready")
        assert re.fullmatch(r"the last [3-9] batches failed", told)
        assert metric(client, "yolox_ready") == 0
        engine.error = None
        assert len(boxes(as_raw(client, plain()))) == 1
        assert client.get("/health/ready").status_code == 200


def test_failing_server_heals_without_any_request() -> None:
    engine = FakeEngine()
    engine.error = RuntimeError("driver is starting")
    with serving(engine, ready_window_s=0.3) as client:
        assert "no inference" in problem(client.get("/health/ready"), 503, "not-ready")
        engine.error = None
        wait_until(client, "yolox_ready", 1)


def test_stuck_engine_makes_the_server_unready() -> None:
    engine = FakeEngine()
    with serving(engine, ready_window_s=0.3, engine_instances=1) as client:
        engine.gate.clear()
        wait_until(client, "yolox_ready", 0)
        assert "within the last 0.3 s" in problem(client.get("/health/ready"), 503, "not-ready")
        assert client.get("/health/live").status_code == 200


def test_draining_server_is_unready_and_serves_on() -> None:
    with serving() as client:
        client.app.running.pipeline.drain()  # type: ignore[attr-defined]
        assert "shutting down" in problem(client.get("/health/ready"), 503, "not-ready")
        assert client.get("/health/live").status_code == 200
        assert len(boxes(as_raw(client, plain()))) == 1


def test_closed_server_refuses_new_work_and_finishes_what_it_has() -> None:
    engine = FakeEngine()
    with serving(engine) as client:
        engine.gate.clear()
        engine.started = threading.Semaphore(0)
        accepted = Crowd(client).send()
        assert engine.started.acquire(timeout=10)
        client.app.running.pipeline.refuse_new()  # type: ignore[attr-defined]
        assert "shutting down" in problem(client.get("/health/ready"), 503, "not-ready")
        response = as_raw(client, plain())
        problem(response, 503, "draining")
        assert response.headers["retry-after"]
        engine.gate.set()
        assert len(boxes(accepted.result(timeout=10))) == 1


def test_hanging_engine_does_not_keep_the_server_from_ending() -> None:
    engine = FakeEngine()
    app = create_app(Settings(shutdown_timeout_s=0.2, ready_window_s=0.3), engine)
    with TestClient(app):
        engine.started = threading.Semaphore(0)
        engine.gate.clear()
        assert engine.started.acquire(timeout=10), "the heartbeat runs into the hanging engine"
    assert app.hung
    engine.gate.set()


class RawRequest:
    """A request to the ASGI application itself, whose client can dawdle or leave."""

    def __init__(self, app: Any, body: bytes, query: bytes = b"", *, complete: bool = True) -> None:
        self.left = asyncio.Event()
        self.reading = asyncio.Event()
        self.rest = asyncio.Event()
        self.status = 0
        self._messages = [{"type": "http.request", "body": body, "more_body": not complete}]
        self._complete = complete
        self._app = app
        self._query = query

    async def run(self) -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/detect",
            "raw_path": b"/detect",
            "query_string": self._query,
            "headers": [(b"content-type", b"image/png")],
        }
        await self._app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if self._messages:
            return self._messages.pop()
        self.reading.set()
        if not self._complete and not self.left.is_set():
            await self.rest.wait()
            self._complete = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)


def test_a_client_that_leaves_takes_its_image_out_of_the_queue() -> None:
    engine = FakeEngine(max_batch=1)

    async def leave_while_waiting(app: Any) -> int:
        request = RawRequest(app, plain(7))
        task = asyncio.create_task(request.run())
        batcher = app.running.pipeline._batcher
        while not batcher._queue:
            await asyncio.sleep(0.001)
        request.left.set()
        await task
        return request.status

    with serving(engine, engine_instances=1) as client:
        engine.gate.clear()
        engine.started = threading.Semaphore(0)
        running = Crowd(client).send()
        assert engine.started.acquire(timeout=10)
        engine.batches.clear()
        assert client.portal is not None
        assert client.portal.call(leave_while_waiting, client.app) == 499
        engine.gate.set()
        assert running.result(timeout=10).status_code == 200
        assert len(boxes(as_raw(client, plain()))) == 1
        assert engine.batches == [(1, 64, 64, 3)]
        assert metric(client, 'yolox_rejections_total{reason="dropped-client-left"}') == 1
        assert metric(client, 'yolox_images_total{outcome="client-left"}') == 1
        assert metric(client, 'yolox_requests_total{endpoint="/detect",status="499"}') == 1
        assert metric(client, "yolox_queue_images") == 0


@pytest.mark.parametrize(("leaves", "status"), [(True, 499), (False, 504)])
def test_a_body_that_never_ends_is_given_up(leaves: bool, status: int) -> None:
    async def dawdle(app: Any) -> int:
        request = RawRequest(app, b"\x89PNG", b"timeout_ms=50", complete=False)
        if leaves:
            request.left.set()
        await request.run()
        return request.status

    with serving() as client:
        assert client.portal is not None
        assert client.portal.call(dawdle, client.app) == status
        assert len(boxes(as_raw(client, plain()))) == 1


def test_32_clients_share_batches_and_each_gets_its_own_answer() -> None:
    engine = FakeEngine(max_batch=16)
    with serving(engine, engine_instances=1) as client:
        alone = {grey: boxes(as_raw(client, plain(grey))) for grey in range(0, 256, 8)}
        engine.gate.clear()
        engine.started = threading.Semaphore(0)
        with ThreadPoolExecutor(33) as pool:
            pool.submit(as_raw, client, plain())
            assert engine.started.acquire(timeout=10)
            crowd = {grey: pool.submit(as_raw, client, plain(grey)) for grey in alone}
            wait_until(client, "yolox_queue_images", 32)
            engine.gate.set()
            together = {grey: boxes(future.result()) for grey, future in crowd.items()}
        assert together == alone
        assert [shape[0] for shape in engine.batches[-2:]] == [16, 16]
        served = metric(client, "yolox_batch_size_sum")
        assert metric(client, "yolox_batch_size_count") < served


def test_metrics_count_what_happened(client: TestClient) -> None:
    as_raw(client, plain())
    as_raw(client, b"text")
    client.get("/nowhere/1")
    client.get("/nowhere/2")
    assert metric(client, 'yolox_requests_total{endpoint="/detect",status="200"}') == 1
    assert metric(client, 'yolox_requests_total{endpoint="/detect",status="415"}') == 1
    assert metric(client, 'yolox_requests_total{endpoint="unmatched",status="404"}') == 2
    client.get("/docs")
    assert metric(client, 'yolox_requests_total{endpoint="/docs",status="200"}') == 1
    assert metric(client, 'yolox_request_duration_seconds_count{endpoint="/detect"}') == 2
    for stage in ("decode", "queue", "inference", "postprocess"):
        assert metric(client, f'yolox_stage_duration_seconds_count{{stage="{stage}"}}') == 1
    assert metric(client, 'yolox_detections_total{class_name="dog"}') == 1
    assert metric(client, 'yolox_rejections_total{reason="unsupported-type"}') == 1
    labels = f'model="fake",provider="{provider(client)}",version="1"'
    assert metric(client, f"yolox_model_info{{{labels}}}") == 1
    assert "process_resident_memory_bytes" in client.get("/metrics").text


def test_uploads_are_served_whether_they_began_before_or_after_the_drain() -> None:
    async def upload_across_the_drain(app: Any) -> int:
        request = RawRequest(app, plain(), complete=False)
        task = asyncio.create_task(request.run())
        await request.reading.wait()
        app.running.pipeline.drain()
        request.rest.set()
        await task
        return request.status

    with serving() as client:
        assert client.portal is not None
        assert client.portal.call(upload_across_the_drain, client.app) == 200
        assert as_raw(client, plain()).status_code == 200


def test_a_bug_in_one_image_harms_no_other(client: TestClient, monkeypatch: Any) -> None:
    real = stages_module.fit_to_model

    def sometimes_broken(image: Any, *args: Any, **options: Any) -> Any:
        if image[0, 0, 0] == 60:
            raise ZeroDivisionError
        return real(image, *args, **options)

    monkeypatch.setattr(stages_module, "fit_to_model", sometimes_broken)
    files = [("images", (str(grey), plain(grey))) for grey in (50, 60, 70)]
    response = client.post("/detect", files=files)
    assert [len(found) for found in boxes(response)] == [1, 0, 1]
    assert response.json()["results"][1]["error"]["status"] == 500


def test_a_multipart_body_cut_short_is_400_and_not_half_an_answer(client: TestClient) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    body = part + plain() + b"\r\n" + part + plain()[:50]
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    detail = problem(
        client.post("/detect", content=body, headers=headers), 400, "malformed-request"
    )
    assert "final boundary" in detail


@pytest.mark.parametrize("charset", ["undefined", "unicode_escape", "utf-7"])
def test_a_form_s_charset_chooses_no_decoder(client: TestClient, charset: str) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="images"; filename="+2AA-\\ud800.png"'
        b"\r\n\r\n" + plain() + b"\r\n--b--\r\n"
    )
    headers = {"Content-Type": f"multipart/form-data; boundary=b; charset={charset}"}
    assert len(boxes(client.post("/detect", content=body, headers=headers))) == 1


@pytest.mark.parametrize("values", ['""', "1", '"AAAA"'])
def test_json_of_very_many_values_is_413_before_it_is_parsed(
    client: TestClient, values: str
) -> None:
    body = '{"images":[' + ",".join([values] * 100_000) + "]}"
    headers = {"Content-Type": "application/json"}
    problem(client.post("/detect", content=body, headers=headers), 413, "too-large")


def test_a_form_field_of_many_kilobytes_is_400(client: TestClient) -> None:
    files = {"images": ("a", plain())}
    response = client.post("/detect", data={"classes": "0," * 10_000}, files=files)
    problem(response, 400, "malformed-request")


def test_bytes_held_over_all_requests_are_bounded_and_given_back() -> None:
    with serving(max_body_bytes=1000, max_buffered_bytes=1000) as client:

        async def fill(app: Any) -> tuple[Any, int]:
            dawdler = RawRequest(app, b"x" * 900, complete=False)
            task = asyncio.create_task(dawdler.run())
            await dawdler.reading.wait()
            second = RawRequest(app, b"x" * 200)
            await second.run()
            dawdler.rest.set()
            await task
            return dawdler.status, second.status

        assert client.portal is not None
        assert client.portal.call(fill, client.app) == (415, 503)
        assert len(boxes(as_raw(client, plain()))) == 1


def test_a_key_beyond_ascii_works() -> None:
    with serving(api_key="clé-ü") as client:
        for key, status in (("clé-ü", 200), ("cle-u", 401)):
            assert client.get("/model", headers={"X-API-Key": key.encode()}).status_code == status


def test_base64_may_be_wrapped_and_its_uri_in_capitals(client: TestClient) -> None:
    wrapped = base64.encodebytes(plain()).decode()
    response = client.post(
        "/detect", json={"images": [wrapped, "DATA:image/png;BASE64," + wrapped]}
    )
    assert [len(found) for found in boxes(response)] == [1, 1]


def test_absent_options_may_be_null(client: TestClient) -> None:
    image = base64.b64encode(plain()).decode()
    body = {"images": [image], "classes": None, "confidence": None}
    assert len(boxes(client.post("/detect", json=body))[0]) == 1


def test_a_thin_picture_is_drawn_and_one_too_long_for_jpeg_refused(client: TestClient) -> None:
    thin = plain(width=70_000, height=1)
    png = client.post("/detect", content=thin, headers=PNG | {"Accept": "image/png"})
    assert png.headers["content-type"] == "image/png"
    response = client.post("/detect", content=thin, headers=PNG | {"Accept": "image/jpeg"})
    problem(response, 406, "not-acceptable")


def test_a_picture_keeps_to_the_deadline(client: TestClient, monkeypatch: Any) -> None:
    gate = threading.Event()
    monkeypatch.setattr("service.pipeline.detector.draw_detections", lambda *_: gate.wait(30))
    headers = PNG | {"Accept": "image/png"}
    response = client.post("/detect?timeout_ms=200", content=plain(), headers=headers)
    problem(response, 504, "deadline-passed")
    gate.set()


def test_health_answers_head_and_metrics_any_accept(client: TestClient) -> None:
    for path in ("/health/live", "/health/ready"):
        response = client.head(path)
        assert (response.status_code, response.content) == (200, b"")
    for accept in ("application/openmetrics-text; version=foo", "application/openmetrics-text"):
        assert client.get("/metrics", headers={"Accept": accept}).status_code == 200


@pytest.mark.parametrize(
    ("engine", "threads"),
    [(FakeEngine(), {"decode_threads": 1}), (CpuEngine(), {"engine_instances": 1})],
)
def test_hanging_decoders_make_the_server_unready(
    engine: FakeEngine, threads: dict[str, int], monkeypatch: Any
) -> None:
    gate = threading.Event()
    read_image = stages_module.read_image

    def hang(*arguments: Any, **options: Any) -> Any:
        gate.wait(30)
        return read_image(*arguments, **options)

    monkeypatch.setattr("service.build.cpus_of_process", lambda _workers: 1)
    with serving(engine, ready_window_s=0.3, **threads) as client:
        monkeypatch.setattr(stages_module, "read_image", hang)
        problem(as_raw(client, plain(), "?timeout_ms=50"), 504, "deadline-passed")
        wait_until(client, "yolox_ready", 0)
        gate.set()
        wait_until(client, "yolox_ready", 1)


def test_a_box_that_lies_in_the_padding_is_not_reported(client: TestClient) -> None:
    """The fake's box spans rows 8 to 16 of 64; a picture six times as wide as high ends at 10."""
    found = boxes(as_raw(client, plain(width=384, height=64)))[0]
    assert found[0]["box"]["y2"] == 64
    assert boxes(as_raw(client, plain(width=640, height=64))) == [[]]


def test_an_image_decoded_smaller_has_its_boxes_in_its_own_pixels() -> None:
    with serving() as client:
        sent = {kind: plain(width=1000, height=800, image_format=kind) for kind in ("JPEG", "PNG")}
        jpeg, png = (as_raw(client, content).json()["results"][0] for content in sent.values())
    assert (jpeg["width"], jpeg["height"]) == (1000, 800)
    assert jpeg["detections"][0]["box"] == pytest.approx(png["detections"][0]["box"], abs=0.1)
    assert jpeg["detections"][0]["box"]["x2"] > 64
