"""NVIDIA's client of the protocol, with a real server."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from support.client import boxes
from support.model_files import dynamic_model
from support.pictures import encode, photo_like
from support.protocol_calls import DEFAULT
from support.repositories import write_garbage, write_version
from support.servers import Server

KEY = {"X-API-Key": "s3cret"}
REPOSITORY = {"Authorization": "Bearer other"}
PIXELS = photo_like(80, 60)
FILE = encode(PIXELS)
FEW = {"confidence": 0.3, "max_detections": 5}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model = dynamic_model(tmp_path_factory.mktemp("model"))
    keys = {"YOLOX_API_KEY": "s3cret", "YOLOX_REPOSITORY_KEY": "other"}
    server = Server("--model", str(model), environment=keys)
    yield server
    server.close()


@pytest.fixture
def client(running: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(running.url.removeprefix("http://")) as client:
        yield client


def key() -> dict[str, str]:
    """The client adds its own headers to those that it is given."""
    return dict(KEY)


def an_input(kind: Any = triton, *, binary: bool = True) -> Any:
    """The photo as a file, or as pixels in JSON."""
    if binary:
        given = kind.InferInput("image", [1], "BYTES")
        return given.set_data_from_numpy(np.array([FILE], object))
    given = kind.InferInput("image", [1, *PIXELS.shape], "UINT8")
    return given.set_data_from_numpy(PIXELS[np.newaxis], binary_data=False)


def expected(running: Server) -> list[dict[str, Any]]:
    """The detections of `/detect`."""
    response = running.client.post("/detect", params=FEW, content=FILE, headers=key())
    (found,) = boxes(response)
    assert 0 < len(found) <= 5
    return found


def check(result: Any, found: list[dict[str, Any]]) -> None:
    assert result.as_numpy("num_detections").tolist() == [len(found)]
    assert result.as_numpy("class_ids").tolist() == [[each["class_id"] for each in found]]
    names = result.as_numpy("class_names")[0]
    told = [each.decode() if isinstance(each, bytes) else each for each in names]
    assert told == [each["class_name"] for each in found]
    for name, value in (("scores", "score"), ("objectness", "objectness")):
        values = [each[value] for each in found]
        np.testing.assert_allclose(result.as_numpy(name)[0], values, atol=1e-5)
    corners = [list(each["box"].values()) for each in found]
    np.testing.assert_allclose(result.as_numpy("boxes")[0], corners, atol=0.006)
    assert result.as_numpy("boxes").dtype == np.float32


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny", headers=key())
    assert client.is_model_ready("tiny", "1", headers=key())
    assert not client.is_model_ready("tiny", "2", headers=key())
    assert client.get_server_metadata(headers=key())["name"] == "yolox-serve"
    told = client.get_model_metadata("tiny", headers=key())
    assert told["versions"] == ["1"]
    assert [output["name"] for output in told["outputs"]] == [*DEFAULT, "rows", "letterboxes"]


@pytest.mark.parametrize("version", ["", "1"])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_inference_finds_what_detect_finds(
    running: Server, client: Any, version: str, binary: bool, compression: str | None
) -> None:
    result = client.infer(
        "tiny", [an_input(binary=binary)], version, headers=key(), parameters=FEW, request_id="7",
        request_compression_algorithm=compression, response_compression_algorithm=compression,
    )  # fmt: skip
    check(result, expected(running))
    assert result.get_response()["id"] == "7"
    assert result.get_response()["model_version"] == "1"


@pytest.mark.parametrize("binary", [True, False])
def test_outputs_are_given_as_asked_for(client: Any, binary: bool) -> None:
    names = ("class_names", "rows", "letterboxes")
    asked = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
    result = client.infer("tiny", [an_input()], outputs=asked, headers=key())
    assert result.as_numpy("boxes") is None
    assert result.as_numpy("rows").shape == (1, 126, 8)
    np.testing.assert_allclose(result.as_numpy("letterboxes"), [[64 / 60, 64, 96]], rtol=1e-6)


def test_no_detection_gives_empty_arrays(client: Any) -> None:
    result = client.infer("tiny", [an_input()], headers=key(), parameters={"confidence": 1.0})
    assert result.as_numpy("num_detections").tolist() == [0]
    assert result.as_numpy("boxes").shape == (1, 0, 4)
    assert result.as_numpy("class_names").shape == (1, 0)


def test_async_calls_of_the_sync_client(running: Server, client: Any) -> None:
    calls = [client.async_infer("tiny", [an_input()], headers=key(), parameters=FEW) for _ in "ab"]
    for call in calls:
        check(call.get_result(), expected(running))


@pytest.mark.parametrize(
    ("name", "version", "headers", "status", "words"),
    [
        ("none", "", KEY, "404", "there is no model 'none'"),
        ("tiny", "2", KEY, "404", "version '2'"),
        ("tiny", "", {}, "401", "X-API-Key"),
    ],
)
def test_errors_reach_the_client(
    client: Any, name: str, version: str, headers: Any, status: str, words: str
) -> None:
    with pytest.raises(InferenceServerException, match=words) as caught:
        client.infer(name, [an_input()], version, headers=dict(headers))
    assert caught.value.status() == status


def test_what_is_not_supported_is_told(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="sequence"):
        client.infer("tiny", [an_input()], headers=key(), sequence_id=3)
    classification = triton.InferRequestedOutput("scores", class_count=2)
    with pytest.raises(InferenceServerException, match="classification"):
        client.infer("tiny", [an_input()], outputs=[classification], headers=key())
    with pytest.raises(InferenceServerException, match="deadline"):
        client.infer("tiny", [an_input()], headers=key(), timeout=1)


def test_the_repository(client: Any) -> None:
    index = client.get_model_repository_index(headers=dict(REPOSITORY))
    assert index == [{"name": "tiny", "version": "1", "state": "READY", "reason": ""}]
    client.load_model("tiny", headers=dict(REPOSITORY))
    with pytest.raises(InferenceServerException, match="name no model"):
        client.unload_model("tiny", headers=dict(REPOSITORY))
    with pytest.raises(InferenceServerException, match="API-Key"):
        client.load_model("tiny", headers=key())


def test_models_of_a_repository_are_loaded_and_unloaded(tmp_path: Path) -> None:
    for version in ("1", "2"):
        write_version(tmp_path, "first", version)
    write_version(tmp_path, "second", "7", logit=4.0)
    running = Server("--models", str(tmp_path), "--repository-key", "other")
    try:
        with triton.InferenceServerClient(running.url.removeprefix("http://")) as client:
            while not client.is_model_ready("second"):
                time.sleep(0.05)
            assert client.get_model_metadata("first")["versions"] == ["1", "2"]
            assert client.infer("second", [an_input()]).get_response()["model_version"] == "7"
            assert client.infer("first", [an_input()]).get_response()["model_version"] == "2"
            client.unload_model("second", headers=dict(REPOSITORY))
            assert not client.is_model_ready("second")
            with pytest.raises(InferenceServerException, match="unloaded"):
                client.infer("second", [an_input()])
            index = client.get_model_repository_index(headers=dict(REPOSITORY))
            assert index[-1] == {
                "name": "second", "version": "7", "state": "UNAVAILABLE", "reason": "unloaded",
            }  # fmt: skip
            client.load_model("second", headers=dict(REPOSITORY))
            assert client.is_model_ready("second", "7")
            write_garbage(tmp_path, "second", "8")
            with pytest.raises(InferenceServerException, match="8"):
                client.load_model("second", headers=dict(REPOSITORY))
            assert client.infer("second", [an_input()]).get_response()["model_version"] == "7"
    finally:
        running.close()


def test_the_client_for_asyncio(running: Server) -> None:
    async def use() -> None:
        async with triton_aio.InferenceServerClient(running.url.removeprefix("http://")) as client:
            assert await client.is_server_ready()
            assert await client.is_model_ready("tiny", headers=key())
            assert (await client.get_model_metadata("tiny", headers=key()))["name"] == "tiny"
            for binary in (True, False):
                given = an_input(triton_aio, binary=binary)
                calls = [
                    client.infer("tiny", [given], headers=key(), parameters=FEW) for _ in range(3)
                ]
                for result in await asyncio.gather(*calls):
                    check(result, expected(running))
            with pytest.raises(InferenceServerException, match="no model"):
                await client.infer("none", [an_input(triton_aio)], headers=key())

    asyncio.run(use())
