"""The Open Inference Protocol over HTTP, byte by byte."""

import gzip
import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.core.contract import ModelContract
from support.client import PNG, boxes, metric, serving
from support.engines import CONTRACT, CpuEngine, FakeEngine
from support.pictures import encode, photo_like, plain
from support.protocol_calls import (
    BINARY_FILE,
    DEFAULT,
    INFER,
    binary,
    error,
    files,
    framed,
    image,
    outputs,
    prefixed,
)

PIXELS = photo_like(80, 60)
HUGE = 2**62


@pytest.fixture(params=[FakeEngine, CpuEngine], ids=["in batches", "on one thread"])
def client(request: pytest.FixtureRequest) -> Iterator[TestClient]:
    with serving(request.param(), letterbox="square") as client:
        yield client


def test_a_call_finds_what_detect_finds(client: TestClient) -> None:
    content = encode(PIXELS)
    (detection,) = boxes(client.post("/detect", content=content, headers=PNG))[0]
    found = outputs(client.post(INFER, json=files(content)))
    assert tuple(found) == DEFAULT
    assert [*found["boxes"][0, 0]] == pytest.approx([*detection["box"].values()], abs=0.006)
    assert found["scores"][0, 0] == pytest.approx(detection["score"], abs=1e-6)
    assert found["objectness"][0, 0] == pytest.approx(detection["objectness"], abs=1e-6)
    assert found["class_ids"][0, 0] == detection["class_id"]
    assert found["class_names"][0, 0] == detection["class_name"]
    assert found["num_detections"].tolist() == [1]
    assert found["image_sizes"].tolist() == [[60, 80]]


@pytest.mark.parametrize(
    "sent",
    [
        {"json": image(shape=[1, 60, 80, 3], datatype="UINT8", data=PIXELS.tolist())},
        {"json": image(shape=[1, 60, 80, 3], datatype="UINT8", data=PIXELS.ravel().tolist())},
        binary("UINT8", [1, 60, 80, 3], PIXELS.tobytes()),
        binary("BYTES", [1], prefixed(encode(PIXELS))),
        binary("BYTES", [1, 1], prefixed(encode(PIXELS))),
        {"content": encode(PIXELS), "headers": {"Inference-Header-Content-Length": "0"}},
    ],
    ids=["nested numbers", "flat numbers", "pixels", "a file", "a file in a column", "raw"],
)
def test_every_form_of_the_image_gives_the_same(client: TestClient, sent: dict[str, Any]) -> None:
    expected = outputs(client.post(INFER, json=files(encode(PIXELS))))
    found = outputs(client.post(INFER, **sent))
    for name in DEFAULT:
        assert found[name].tolist() == expected[name].tolist()


@pytest.mark.parametrize("color_order", ["RGB", "BGR"])
def test_pixels_are_rgb_whatever_the_model_takes(color_order: Any) -> None:
    seen = []

    class Looking(FakeEngine):
        def rows_of(self, image: Any) -> Any:
            seen.append(image[0, 0].tolist())
            return super().rows_of(image)

    with serving(Looking(), letterbox="square") as client:
        seen.clear()
        red = np.tile(np.array([250, 20, 3], np.uint8), (64, 64, 1))
        assert client.post(INFER, **binary("UINT8", [1, 64, 64, 3], red.tobytes())).is_success
        assert client.post(INFER, json=files(encode(red))).is_success
    assert seen == [[3, 20, 250]] * 2


def test_images_of_a_call_share_tensors_filled_up_to_the_longest(client: TestClient) -> None:
    some = [plain(grey, 64 + 8 * at) for at, grey in enumerate((10, 90, 200))]
    found = outputs(client.post(INFER, json=files(*some)))
    assert found["boxes"].shape == (3, 1, 4)
    assert found["image_sizes"].tolist() == [[64, 64], [64, 72], [64, 80]]
    pixels = np.stack([photo_like(32, 32, seed) for seed in (1, 2)])
    assert outputs(client.post(INFER, **binary("UINT8", [2, 32, 32, 3], pixels.tobytes())))[
        "num_detections"
    ].tolist() == [1, 1]


def test_images_without_a_box_have_empty_tensors(client: TestClient) -> None:
    call = files(plain(), parameters={"classes": "owl", "binary_data_output": True})
    found = outputs(client.post(INFER, json=call))
    assert found["num_detections"].tolist() == [0]
    shapes = {name: found[name].shape for name in ("boxes", "scores", "class_ids", "class_names")}
    assert shapes == {"boxes": (1, 0, 4), "scores": (1, 0), "class_ids": (1, 0),
                      "class_names": (1, 0)}  # fmt: skip


class Sometimes(FakeEngine):
    """Finds nothing in dark images."""

    def rows_of(self, image: Any) -> Any:
        rows = super().rows_of(image)
        return rows if image[0, 0, 0] > 50 else np.full_like(rows, -12)


def test_an_image_with_fewer_boxes_is_filled_up_with_what_is_no_detection() -> None:
    with serving(Sometimes(), letterbox="square") as client:
        found = outputs(client.post(INFER, json=files(plain(10), plain(200))))
    assert found["num_detections"].tolist() == [0, 1]
    assert found["class_ids"].tolist() == [[-1], [1]]
    assert found["class_names"].tolist() == [[""], ["dog"]]
    assert found["scores"][0, 0] == 0
    assert not found["boxes"][0].any()


def test_outputs_come_in_the_order_and_the_form_that_is_asked_for(client: TestClient) -> None:
    asked = [{"name": "scores", "parameters": {"binary_data": False}}, {"name": "class_names"}]
    call = files(plain(), id="42", outputs=asked, parameters={"binary_data_output": True})
    response = client.post(INFER, json=call)
    assert list(outputs(response)) == ["scores", "class_names"]
    length = int(response.headers["inference-header-content-length"])
    answer = json.loads(response.content[:length])
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("fake", "1", "42")
    assert answer["outputs"][0] | {"data": None} == {
        "name": "scores", "shape": [1, 1], "datatype": "FP32", "data": None,
    }  # fmt: skip
    assert answer["outputs"][1]["parameters"] == {"binary_data_size": 7}
    assert response.content[length:] == b"\x03\0\0\0dog"
    assert response.headers["content-type"] == "application/octet-stream"


def test_parameters_are_the_options_of_detect(client: TestClient) -> None:
    content = encode(PIXELS)
    plain_boxes = outputs(client.post(INFER, json=files(content)))["boxes"][0, 0]
    x1, y1, x2, y2 = plain_boxes
    normalized = {"boxes": "cxcywh", "normalized": True, "timeout": 5_000_000}
    found = outputs(client.post(INFER, json=files(content, parameters=normalized)))["boxes"][0, 0]
    centre = [(x1 + x2) / 160, (y1 + y2) / 120, (x2 - x1) / 80, (y2 - y1) / 60]
    assert [*found] == pytest.approx(centre, abs=1e-5)
    assert outputs(client.post(INFER, json=files(content, parameters={"confidence": "0.9999"})))[
        "num_detections"
    ].tolist() == [0]


def test_raw_rows_come_on_request_with_what_maps_them_to_the_image(client: TestClient) -> None:
    asked = [{"name": "rows"}, {"name": "letterboxes"}, {"name": "boxes"}]
    call = files(encode(PIXELS), outputs=asked, parameters={"binary_data_output": True})
    found = outputs(client.post(INFER, json=call))
    rows = found["rows"]
    assert rows.shape == (1, 64 + 16 + 4, 8)
    ratio, height, width = found["letterboxes"][0]
    assert (height, width) == (64, 64)
    assert ratio == pytest.approx(0.8)
    (best,) = np.flatnonzero(rows[0, :, 4] > 0)
    column, row = best % 8, best // 8
    x, y = (rows[0, best, :2] + (column, row)) * 8
    w, h = np.exp(rows[0, best, 2:4]) * 8
    box = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) / ratio
    np.testing.assert_allclose(box, found["boxes"][0, 0], atol=1e-4)


def test_rows_of_images_that_are_fitted_differently_do_not_make_one_tensor() -> None:
    with serving(FakeEngine(), letterbox="rectangle") as client:
        call = files(plain(width=64, height=32), plain(), outputs=[{"name": "rows"}])
        assert "send one image a request" in error(client.post(INFER, json=call), 400)


def test_rows_that_would_not_fit_into_memory_are_refused_before_the_model_runs() -> None:
    engine = FakeEngine()
    with serving(engine, max_body_bytes=4000, max_buffered_bytes=6000) as client:
        ran = len(engine.batches)
        call = files(plain(), outputs=[{"name": "rows"}])
        assert "send fewer images" in error(client.post(INFER, json=call), 413)
        assert len(engine.batches) == ran


def test_compressed_calls_are_taken(client: TestClient) -> None:
    sent = BINARY_FILE | {"content": gzip.compress(BINARY_FILE["content"])}
    headers = sent["headers"] | {"Content-Encoding": "gzip"}
    assert outputs(client.post(INFER, content=sent["content"], headers=headers))


def test_null_counts_as_absent(client: TestClient) -> None:
    call = files(plain(), id=None, parameters=None, outputs=None, model_name="fake")
    call["inputs"][0]["parameters"] = None
    assert tuple(outputs(client.post(INFER, json=call))) == DEFAULT


def one_pixel(data: list[Any]) -> dict[str, Any]:
    return image(shape=[1, 1, 1, 3], datatype="UINT8", data=data)


def json_of(length: str) -> dict[str, Any]:
    return {"headers": {"Inference-Header-Content-Length": length}}


CUT = prefixed(plain())
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no JSON": ({"content": plain()}, "Inference-Header-Content-Length"),
    "another input": ({"json": files(plain()) | {"inputs": [{"name": "images", "shape": [1],
                      "datatype": "BYTES", "data": [""]}]}}, "'images' was sent"),
    "a list": ({"json": [files(plain())]}, "object"),
    "no input": ({"json": {"inputs": []}}, "none was sent"),
    "inputs twice": ({"json": {"inputs": files(plain())["inputs"] * 2}}, "one input"),
    "unknown field": ({"json": files(plain(), outpus=[])}, "outpus"),
    "unknown output": ({"json": files(plain(), outputs=[{"name": "box"}])}, "unknown output 'box'"),
    "output twice": ({"json": files(plain(), outputs=[{"name": "boxes"}] * 2)}, "twice"),
    "classification": ({"json": files(plain(), outputs=[{"name": "scores",
                       "parameters": {"classification": 3}}])},
                       "class_ids, class_names and class_scores are outputs"),
    "classification of all": ({"json": files(plain(), parameters={"classification": 3})},
                              "class_ids, class_names and class_scores are outputs"),
    "unknown parameter": ({"json": files(plain(), parameters={"conf": 0.1})}, "confidence?"),
    "format": ({"json": files(plain(), parameters={"format": "coco"})}, "/detect alone"),
    "priority": ({"json": files(plain(), parameters={"priority": 1})}, "same priority"),
    "out of range": ({"json": files(plain(), parameters={"iou": 2})}, "iou"),
    "timeout": ({"json": files(plain(), parameters={"timeout": "soon"})}, "microseconds"),
    "long timeout": ({"json": files(plain(), parameters={"timeout": 10**10})}, "at most"),
    "flag": ({"json": files(plain(), parameters={"binary_data_output": 1})}, "true or false"),
    "unknown class": ({"json": files(plain(), parameters={"classes": "cow"})}, "'cow'"),
    "long id": ({"json": files(plain(), id="x" * 300)}, "id may have"),
    "shared memory": ({"json": image(shape=[1], datatype="BYTES",
                      parameters={"shared_memory_region": "a"})}, "'shared_memory_region'"),
    "other text": ({"json": image(shape=[1], datatype="BYTES", data=["a"],
                   parameters={"content_type": "str"})}, "base64"),
    "no data": ({"json": image(shape=[1], datatype="BYTES")}, "neither data"),
    "no text": ({"json": image(shape=[1], datatype="BYTES", data=[1])}, "base64"),
    "too few": ({"json": image(shape=[2], datatype="BYTES", data=["AAAA"])}, "promises 2 elements"),
    "floats": (binary("FP32", [1, 2, 2, 3], bytes(48)), "FP32"),
    "no colour": (binary("UINT8", [1, 2, 2, 1], bytes(4)), "[N, height, width, 3]"),
    "no batch": (binary("UINT8", [2, 2, 3], bytes(12)), "[N, height, width, 3]"),
    "files in a plane": (binary("BYTES", [1, 2], CUT), "[N]"),
    "no images": (binary("UINT8", [0, 2, 2, 3], b""), "[0, 2, 2, 3]"),
    "no files": (binary("BYTES", [0], b""), "[0]"),
    "no height": (binary("UINT8", [1, 0, 2, 3], b""), "[1, 0, 2, 3]"),
    "negative": (binary("UINT8", [1, -2, 2, 3], bytes(12)), "shape"),
    "overflow": (binary("UINT8", [1, HUGE, HUGE, 3], bytes(12)), "promises"),
    "any length": ({"json": image(shape=[-1], datatype="BYTES", data=[""])},
                   "-1 stands for any length in the metadata of a model, and in no request"),
    "beyond 64 bits": (binary("UINT8", [1, 2**70, 2, 3], bytes(12)), "shape"),
    "many axes": (binary("UINT8", [1] * 70, bytes(1)), "shape"),
    "text as axis": ({"json": image(shape=["1"], datatype="BYTES", data=[""])}, "shape"),
    "short pixels": (binary("UINT8", [1, 2, 2, 3], bytes(11)), "holds 11"),
    "long pixels": (binary("UINT8", [1, 2, 2, 3], bytes(13)), "holds 13"),
    "ragged": ({"json": image(shape=[1, 1, 2, 3], datatype="UINT8", data=[[1, 2], [3]])}, "nested"),
    "large number": ({"json": one_pixel([1, 2, 256])}, "255"),
    "half number": ({"json": one_pixel([1, 2, 0.5])}, "255"),
    "null": ({"json": one_pixel([1, 2, None])}, "255"),
    "object": ({"json": one_pixel([{}, 1, 2])}, "numbers"),
    "flag for a number": ({"json": one_pixel([True, 1, 2])}, "not strings or booleans"),
    "text for a number": ({"json": one_pixel(["1", 1, 2])}, "not strings or booleans"),
    "nested text": ({"json": one_pixel([[[[1, "1", 2]]]])}, "not strings or booleans"),
    "deep": ({"json": one_pixel(json.loads("[" * 150 + "]" * 150))}, "numbers"),
    "cut length": (binary("BYTES", [1], b"\1\0"), "cut short"),
    "cut element": (binary("BYTES", [1], CUT[:-1]), "little-endian"),
    "one too many": (binary("BYTES", [1], CUT * 2), "follow the 1 elements"),
    "one too few": (binary("BYTES", [2], CUT), "holds 1"),
    "no prefix": (binary("BYTES", [1], plain()), "little-endian"),
    "size too large": (framed(image(shape=[1], datatype="BYTES",
                       parameters={"binary_data_size": 9}), b"12"), "2 bytes follow"),
    "size as text": (framed(image(shape=[1], datatype="BYTES",
                     parameters={"binary_data_size": "2"}), b"12"), "2 bytes follow"),
    "data and bytes": (framed(image(shape=[1], datatype="BYTES", data=["a"],
                       parameters={"binary_data_size": 2}), b"12"), "both"),
    "bytes of nobody": (framed(files(plain()), b"12"), "no input has"),
    "header is text": (BINARY_FILE | json_of("x"), "number"),
    "header is negative": (BINARY_FILE | json_of("-1"), "number"),
    "header is long": (BINARY_FILE | json_of("9" * 5000), "number"),
    "header is too large": (BINARY_FILE | json_of("99999"), "the body has"),
    "empty": ({"content": b""}, "not JSON"),
    "empty and raw": ({"content": b"", "headers": {"Inference-Header-Content-Length": "0"}},
                      "no image"),
    "damaged": ({"json": files(plain()[:60])}, "damaged"),
    "no image": (binary("BYTES", [1], prefixed(b"text")), "not an image"),
    "one of several": ({"json": files(plain(), b"text")}, "image 1: "),
    "UTF-16": ({"content": json.dumps(files(plain())).encode("utf-16")}, "UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_in_the_protocol_s_form(shared: TestClient, name: str) -> None:
    sent, words = WRONG[name]
    assert words in error(shared.post(INFER, **sent), 400)


@pytest.fixture(scope="module")
def shared() -> Iterator[TestClient]:
    with serving(FakeEngine(), max_images_per_request=4, max_image_pixels=10_000) as client:
        yield client


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({"json": files(*[plain()] * 5)}, "at most 4 images"),
        (binary("UINT8", [5, 1, 1, 3], bytes(15)), "at most 4 images"),
        (binary("UINT8", [1, 101, 100, 3], bytes(30300)), "100 x 101 pixels"),
        ({"json": image(shape=[1, 256, 260, 3], datatype="UINT8", data=[0] * (256 * 260 * 3))},
         "send the tensor in binary form, as bytes behind the JSON with binary_data_size"),
        ({"json": image(shape=[1, 1, 1, 3], datatype="UINT8", data=[0] * 197_000)}, "binary data"),
    ],
    ids=["files", "images", "pixels", "values", "numbers"],
)  # fmt: skip
def test_too_much_is_413(shared: TestClient, sent: dict[str, Any], words: str) -> None:
    assert words in error(shared.post(INFER, **sent), 413)


def test_a_long_text_among_numbers_costs_no_more_than_itself(shared: TestClient) -> None:
    # As an array of texts of one length it would take 4 bytes x 1 MB x 10,000.
    data = ["x" * 1_000_000] + ["y"] * 10_000
    sent = {"json": image(shape=[1, 1, 1, 3], datatype="UINT8", data=data)}
    assert "numbers" in error(shared.post(INFER, **sent), 400)


def test_a_long_body_is_413() -> None:
    with serving(max_body_bytes=1000) as client:
        assert "1000 bytes" in error(client.post(INFER, content=bytes(1001)), 413)


@pytest.mark.parametrize("path", ["/v2/models/none", "/v2/models/fake/versions/9", "/v2/nothing"])
def test_unknown_paths_and_models_are_404(shared: TestClient, path: str) -> None:
    assert error(shared.get(path), 404)
    assert error(shared.post(f"{path}/infer", json=files(plain())), 404)


@pytest.mark.parametrize(
    "path",
    ["/v2/models/fake/config", "/v2/models/fake/stats", "/v2/models/fake/generate",
     "/v2/systemsharedmemory/status"],
)  # fmt: skip
def test_a_part_of_the_protocol_that_is_not_here_is_404_with_what_there_is(
    shared: TestClient, path: str
) -> None:
    told = error(shared.post(path, json={}) if "generate" in path else shared.get(path), 404)
    assert "/v2/models/NAME/infer" in told
    assert all(each in told for each in shared.get("/v2").json()["extensions"])
    assert "/detect" not in told


def test_a_wrong_method_is_405_in_the_protocol_s_form(shared: TestClient) -> None:
    response = shared.get(INFER)
    assert "POST" in error(response, 405)
    assert response.headers["allow"] == "POST"


def test_questions_about_server_and_model_are_answered(shared: TestClient) -> None:
    assert shared.get("/v2").json() == shared.get("/v2/").json()
    assert shared.get("/v2").json()["extensions"][0] == "binary_tensor_data"
    assert shared.get("/v2/health/live").json() == {"live": True}
    assert shared.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/fake", "/v2/models/fake/versions/1"):
        assert shared.get(f"{path}/ready").json() == {"name": "fake", "ready": True}
        told = shared.get(path).json()
        assert (told["name"], told["versions"]) == ("fake", ["1"])
        assert told["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
        assert [output["name"] for output in told["outputs"]] == [*DEFAULT, "rows", "letterboxes"]
        found = outputs(shared.post(f"{path}/infer", json=files(plain())))
        for output in told["outputs"][: len(DEFAULT)]:
            assert len(output["shape"]) == found[output["name"]].ndim


def test_a_draining_server_is_unready_and_refuses_calls(shared: TestClient) -> None:
    with serving() as client:
        client.app.running.pipeline.drain()  # type: ignore[attr-defined]
        for path in ("/v2/health/ready", "/v2/models/fake/ready"):
            response = client.get(path)
            assert "shutting down" in error(response, 503)
        client.app.running.pipeline.refuse_new()  # type: ignore[attr-defined]
        response = client.post(INFER, json=files(plain()))
        assert "shutting down" in error(response, 503)
        assert response.headers["retry-after"] == "1"


def test_a_full_queue_is_503_and_counts() -> None:
    engine = FakeEngine(max_batch=1)
    with serving(
        engine, max_queue_images=1, max_images_per_request=1, engine_instances=1
    ) as client:
        engine.gate.clear()
        while engine.started.acquire(blocking=False):
            pass
        waiting = [
            threading.Thread(target=client.post, args=(INFER,), kwargs=BINARY_FILE) for _ in "ab"
        ]
        waiting[0].start()
        assert engine.started.acquire(timeout=20)
        waiting[1].start()
        while metric(client, "yolox_queue_images") < 1:
            pass
        assert metric(client, "yolox_requests_in_flight") == 2
        assert "places in the queue" in error(client.post(INFER, **BINARY_FILE), 503)
        engine.gate.set()
        for each in waiting:
            each.join()
        assert metric(client, 'yolox_rejections_total{reason="queue-full"}') == 1
        route = 'endpoint="/v2/models/{name}/infer"'
        assert metric(client, f'yolox_requests_total{{{route},status="200"}}') == 2
        assert metric(client, f'yolox_requests_total{{{route},status="503"}}') == 1


def test_a_late_call_is_504() -> None:
    engine = FakeEngine()
    with serving(engine) as client:
        engine.gate.clear()
        call = files(plain(), plain(), parameters={"timeout_ms": 50})
        assert "deadline" in error(client.post(INFER, json=call), 504)


def test_bodies_in_memory_are_bounded_together_with_those_of_detect() -> None:
    with serving(max_body_bytes=2000, max_buffered_bytes=2000) as client:
        running = client.app.running  # type: ignore[attr-defined]
        running.bodies.free = 10
        assert "bytes of requests" in error(client.post(INFER, **BINARY_FILE), 503)
        running.bodies.free = 2000
        assert client.post(INFER, **BINARY_FILE).is_success
        assert running.bodies.free == 2000


def test_keys_are_asked_for_but_not_by_health_checks() -> None:
    with serving(api_key="s3cret") as client:
        for path in ("/v2", "/v2/models/fake", "/v2/models/fake/ready"):
            response = client.get(path)
            assert error(response, 401)
            assert response.headers["www-authenticate"] == "Bearer"
            assert client.get(path, headers={"X-API-Key": "s3cret"}).is_success
        assert error(client.post(INFER, **BINARY_FILE), 401)
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert client.get(path).is_success


def test_the_repository_has_a_key_of_its_own() -> None:
    index = "/v2/repository/index"
    with serving(api_key="s3cret") as client:
        assert "repository_key" in error(client.post(index), 403)
    with serving(api_key="s3cret", repository_key="other") as client:
        assert error(client.post(index, headers={"X-API-Key": "s3cret"}), 401)
        client.headers["Authorization"] = "Bearer other"
        ready = {"name": "fake", "version": "1", "state": "READY", "reason": ""}
        for body in (None, {}, {"ready": True}):
            assert client.post(index, json=body).json() == [ready]
        assert error(client.post(index, content=b"[]"), 400)
        models = "/v2/repository/models"
        assert client.post(f"{models}/fake/load", json={}).is_success
        assert "config" in error(
            client.post(f"{models}/fake/load", json={"parameters": {"config": "{}"}}), 400
        )
        assert error(client.post(f"{models}/none/load"), 404)
        assert "name no model" in error(client.post(f"{models}/fake/unload"), 409)


def test_an_engine_that_leaves_out_rows_gives_all_where_they_are_asked_for() -> None:
    class Choosing(FakeEngine):
        def infer_candidates(self, images: Any, thresholds: Any) -> Any:
            raise AssertionError("rows would be missing")

    engine = FakeEngine()
    with serving(engine) as client:
        engine.__class__ = Choosing
        try:
            call = files(plain(), outputs=[{"name": "rows"}])
            assert outputs(client.post(INFER, json=call))["rows"].shape == (1, 84, 8)
        finally:
            engine.__class__ = FakeEngine


def test_names_beyond_ascii_are_utf_8() -> None:
    contract = ModelContract("fake", "1", CONTRACT.input, ("a", "Bär", "c"))
    with serving(FakeEngine(contract), letterbox="square") as client:
        for parameters in ({}, {"binary_data_output": True}):
            found = outputs(client.post(INFER, json=files(plain(), parameters=parameters)))
            assert found["class_names"].tolist() == [["Bär"]]
