"""NVIDIA's client of the protocol over gRPC, with a real server.

The client registers its messages under the names that the server's have, so that no process can
have both: tests of the server's gRPC speak to a process.
"""

import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

import service.process.listening.grpc_port as grpc_port_module
from service.errors import StartupError
from service.settings import Settings
from support.client import boxes
from support.model_files import dynamic_model
from support.pictures import encode, photo_like
from support.protocol_calls import DEFAULT, prefixed
from support.servers import Server, server

KEY = {"x-api-key": "s3cret"}
REPOSITORY = {"authorization": "Bearer other"}
PIXELS = photo_like(80, 60)
FILE = encode(PIXELS)
FEW = {"confidence": 0.3, "max_detections": 5}
MIB = 2**20
# The length that the bytes 80 80 21 stand for, just over what is parsed.
LONG = 0x21 << 14
INFER = "/inference.GRPCInferenceService/ModelInfer"


def grpc_address(running: Server) -> str:
    """The address of the gRPC port, as the log tells it."""
    events = [json.loads(line) for line in running.events if line.startswith("{")]
    (port,) = [e["port"] for e in events if e.get("event") == "the gRPC port listens"]
    return f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dynamic_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def running(model: Path) -> Iterator[Server]:
    keys = {"YOLOX_API_KEY": "s3cret", "YOLOX_REPOSITORY_KEY": "other"}
    limits = ["--max-body-bytes", str(MIB), "--max-buffered-bytes", str(4 * MIB)]
    running = Server("--model", str(model), "--grpc-port", "0", *limits, environment=keys)
    yield running
    running.close()


@pytest.fixture(scope="module")
def client(running: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(grpc_address(running)) as client:
        yield client


@pytest.fixture(scope="module")
def stub(running: Server) -> Iterator[Any]:
    with grpc.insecure_channel(grpc_address(running)) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def an_input(kind: Any = triton, *, pixels: bool = False) -> Any:
    if pixels:
        given = kind.InferInput("image", [1, *PIXELS.shape], "UINT8")
        return given.set_data_from_numpy(PIXELS[np.newaxis])
    given = kind.InferInput("image", [1], "BYTES")
    return given.set_data_from_numpy(np.array([FILE], object))


def expected(running: Server) -> list[dict[str, Any]]:
    """The detections of `/detect`."""
    response = running.client.post("/detect", params=FEW, content=FILE, headers=KEY)
    (found,) = boxes(response)
    assert 0 < len(found) <= 5
    return found


def check(result: Any, found: list[dict[str, Any]]) -> None:
    assert result.as_numpy("num_detections").tolist() == [len(found)]
    assert result.as_numpy("class_ids").tolist() == [[each["class_id"] for each in found]]
    names = [name.decode() for name in result.as_numpy("class_names")[0]]
    assert names == [each["class_name"] for each in found]
    scores = [each["score"] for each in found]
    np.testing.assert_allclose(result.as_numpy("scores")[0], scores, atol=1e-5)
    corners = [list(each["box"].values()) for each in found]
    np.testing.assert_allclose(result.as_numpy("boxes")[0], corners, atol=0.006)


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny", headers=KEY)
    assert client.is_model_ready("tiny", "1", headers=KEY)
    assert client.get_server_metadata(headers=KEY).name == "yolox-serve"
    told = client.get_model_metadata("tiny", headers=KEY, as_json=True)
    assert told["versions"] == ["1"]
    assert told["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": ["-1"]}]
    assert [output["name"] for output in told["outputs"]] == [*DEFAULT, "rows", "letterboxes"]


@pytest.mark.parametrize("version", ["", "1"])
@pytest.mark.parametrize("pixels", [False, True])
def test_inference_finds_what_detect_finds(
    running: Server, client: Any, version: str, pixels: bool
) -> None:
    result = client.infer(
        "tiny", [an_input(pixels=pixels)], version, headers=KEY, parameters=FEW, request_id="7",
        client_timeout=20,
    )  # fmt: skip
    check(result, expected(running))
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("7", "tiny", "1")


def test_outputs_are_given_as_asked_for(client: Any) -> None:
    names = ("class_names", "rows", "letterboxes")
    asked = [triton.InferRequestedOutput(name) for name in names]
    result = client.infer("tiny", [an_input()], outputs=asked, headers=KEY)
    assert [output.name for output in result.get_response().outputs] == [*names]
    assert result.as_numpy("rows").shape == (1, 126, 8)
    np.testing.assert_allclose(result.as_numpy("letterboxes"), [[64 / 60, 64, 96]], rtol=1e-6)


def test_no_detection_gives_empty_arrays(client: Any) -> None:
    result = client.infer("tiny", [an_input()], headers=KEY, parameters={"confidence": 1.0})
    assert result.as_numpy("boxes").shape == (1, 0, 4)
    assert result.as_numpy("class_names").shape == (1, 0)


def test_contents_are_taken_as_well_as_raw_bytes(running: Server, stub: Any) -> None:
    for datatype, shape, contents in (
        ("BYTES", [1], {"bytes_contents": [FILE]}),
        ("UINT8", [1, *PIXELS.shape], {"uint_contents": PIXELS.ravel().tolist()}),
    ):
        given = {"name": "image", "datatype": datatype, "shape": shape, "contents": contents}
        few = {"confidence": {"double_param": 0.3}, "max_detections": {"string_param": "5"}}
        call = service_pb2.ModelInferRequest(model_name="tiny", inputs=[given], parameters=few)
        found = stub.ModelInfer(call, metadata=[*KEY.items()])
        check(triton.InferResult(found), expected(running))


def test_the_client_for_asyncio(running: Server) -> None:
    async def use() -> None:
        async with triton_aio.InferenceServerClient(grpc_address(running)) as client:
            assert await client.is_server_ready()
            assert (await client.get_model_metadata("tiny", headers=KEY)).name == "tiny"
            for pixels in (True, False):
                given = an_input(triton_aio, pixels=pixels)
                calls = [
                    client.infer("tiny", [given], headers=KEY, parameters=FEW) for _ in range(9)
                ]
                for result in await asyncio.gather(*calls):
                    check(result, expected(running))
            with pytest.raises(InferenceServerException, match="no model"):
                await client.infer("none", [an_input(triton_aio)], headers=KEY)

    asyncio.run(use())


@pytest.mark.parametrize(
    ("name", "version", "headers", "options", "status", "words"),
    [
        ("none", "", KEY, {}, "NOT_FOUND", "there is no model 'none'"),
        ("tiny", "2", KEY, {}, "NOT_FOUND", "version '2'"),
        ("tiny", "", {}, {}, "UNAUTHENTICATED", "X-API-Key"),
        ("tiny", "", KEY, {"sequence_id": 3}, "INVALID_ARGUMENT", "sequence"),
        ("tiny", "", KEY, {"timeout": 1}, "DEADLINE_EXCEEDED", "deadline"),
        ("tiny", "", KEY, {"parameters": {"conf": 1}}, "INVALID_ARGUMENT", "confidence?"),
        ("tiny", "", KEY, {"compression_algorithm": "gzip"}, "UNIMPLEMENTED", "(?i)compression"),
    ],
)
def test_errors_reach_the_client(
    client: Any, name: str, version: str, headers: Any, options: Any, status: str, words: str
) -> None:
    with pytest.raises(InferenceServerException, match=words) as caught:
        client.infer(name, [an_input()], version, headers=headers, **options)
    assert caught.value.status() == f"StatusCode.{status}"


GIVEN = {"name": "image", "datatype": "BYTES", "shape": [1]}
RAW = prefixed(FILE)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no input": ({}, "none was sent"),
    "another input": ({"inputs": [GIVEN | {"name": "images"}]}, "'images' was sent"),
    "two raw": ({"inputs": [GIVEN], "raw_input_contents": [RAW, RAW]}, "one entry"),
    "raw and contents": ({"inputs": [GIVEN | {"contents": {"bytes_contents": [FILE]}}],
                          "raw_input_contents": [RAW]}, "contents none"),
    "no data": ({"inputs": [GIVEN]}, "holds 0"),
    "no prefix": ({"inputs": [GIVEN], "raw_input_contents": [FILE]}, "little-endian"),
    "other type": ({"inputs": [GIVEN | {"datatype": "FP32"}]}, "FP32"),
    "negative": ({"inputs": [GIVEN | {"shape": [-1]}], "raw_input_contents": [RAW]}, "[-1]"),
    "overflow": ({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 2**62, 2**62, 3]}],
                  "raw_input_contents": [b"abc"]}, "promises"),
    "large number": ({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3],
                      "contents": {"uint_contents": [1, 2, 256]}}]}, "255"),
    "input parameter": ({"inputs": [GIVEN | {"parameters": {"shared_memory_region":
                         {"string_param": "a"}}}]}, "shared_memory_region"),
    "classification": ({"inputs": [GIVEN], "raw_input_contents": [RAW], "outputs": [
                        {"name": "scores", "parameters": {"classification": {"int64_param": 1}}}]},
                       "classification"),
    "unknown output": ({"inputs": [GIVEN], "raw_input_contents": [RAW],
                        "outputs": [{"name": "box"}]}, "unknown output"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_message_is_told(stub: Any, name: str) -> None:
    fields, words = WRONG[name]
    call = service_pb2.ModelInferRequest(model_name="tiny", **fields)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(call, metadata=[*KEY.items()])
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in caught.value.details()


def sent(running: Server, path: str, content: bytes) -> grpc.StatusCode:
    """The code that answers these bytes."""
    with grpc.insecure_channel(grpc_address(running)) as channel:
        try:
            channel.unary_unary(path)(content, metadata=[*KEY.items()], timeout=20)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


def test_bytes_that_are_no_message_or_cost_too_much_are_refused(running: Server) -> None:
    invalid, exhausted = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
    for content in (b"\xff" * 50, b"\x0a\xff\x01", b"\x0b", b"\x2a", b"\x2a\x02\x0a\x09"):
        assert sent(running, INFER, content) is invalid
    # Inputs, parameters, text and numbers of a few bytes each, which take 50 times as much parsed.
    for content in (b"\x2a\x00" * 400_000, b"\x22\x00" * 400_000,
                    b"\x0a\x80\x80\x21" + b"x" * LONG,
                    b"\x2a\x84\x80\x21\x2a\x80\x80\x21" + b"\1" * LONG):  # fmt: skip
        assert sent(running, INFER, content) is exhausted
    assert sent(running, INFER, bytes(3 * MIB)) is exhausted
    live = "/inference.GRPCInferenceService/ServerLive"
    assert sent(running, live, b"") is grpc.StatusCode.OK
    assert sent(running, live, b"\x0a\x80\x80\x08" + bytes(2**17)) is exhausted
    health = "/grpc.health.v1.Health/Check"
    assert sent(running, health, b"\x0a\x80\x80\x08" + b"x" * 2**17) is exhausted


@pytest.mark.parametrize("name", ["ModelConfig", "ModelStatistics", "SystemSharedMemoryStatus"])
def test_a_call_that_is_not_there_is_unimplemented_and_told(stub: Any, name: str) -> None:
    message = getattr(service_pb2, f"{name}Request")()
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, name)(message)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "this server has no such call; inference.GRPCInferenceService has ServerLive" in (
        caught.value.details()
    )


def test_calls_are_counted_and_logged_like_requests(running: Server, client: Any) -> None:
    client.infer("tiny", [an_input()], headers=KEY | {"x-request-id": "from-me"})
    line = running.wait_for("request")
    while line["request_id"] != "from-me":
        line = running.wait_for("request")
    assert (line["method"], line["endpoint"], line["status"]) == ("gRPC", INFER, 200)
    assert (line["images"], line["model"], line["client"]) == (1, "tiny@1", "127.0.0.1")
    assert line["bytes"] > len(FILE)
    metrics = running.client.get("/metrics").text
    assert f'yolox_requests_total{{endpoint="{INFER}",status="200"}}' in metrics
    assert "yolox_requests_in_flight 0.0" in metrics


def test_the_repository(client: Any) -> None:
    index = client.get_model_repository_index(headers=REPOSITORY)
    assert [(each.name, each.version, each.state) for each in index.models] == [
        ("tiny", "1", "READY")
    ]
    client.load_model("tiny", headers=REPOSITORY)
    with pytest.raises(InferenceServerException, match="name no model"):
        client.unload_model("tiny", headers=REPOSITORY)
    with pytest.raises(InferenceServerException, match="API-Key"):
        client.load_model("tiny", headers=KEY)


SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SLOW = """
import time
from service.engine.onnx_cpu import OnnxCpuEngine as Engine
infer = Engine.infer
def slow(*arguments, **options):
    time.sleep(1.5)
    return infer(*arguments, **options)
Engine.infer = slow
"""


def test_on_sigterm_health_turns_at_once_and_calls_are_finished(model: Path) -> None:
    arguments = ["--grpc-port", "0", "--drain-grace-s", "1", "--ready-window-s", "120"]
    with (
        server(model, *arguments, sabotage=SLOW) as running,
        grpc.insecure_channel(grpc_address(running)) as channel,
        triton.InferenceServerClient(grpc_address(running)) as client,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == SERVING
        told = health.Watch(health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService"))
        assert next(told).status == SERVING
        found: list[Any] = []
        late = threading.Thread(target=lambda: found.append(client.infer("tiny", [an_input()])))
        late.start()
        while "yolox_requests_in_flight 1.0" not in running.client.get("/metrics").text:
            time.sleep(0.02)
        running.send(signal.SIGTERM)
        assert next(told).status == NOT_SERVING
        assert not client.is_server_ready()
        late.join(timeout=20)
        assert found[0].as_numpy("boxes").shape[0] == 1
        assert running.exit_code() == 0


def test_workers_share_the_port(model: Path) -> None:
    port = free_port()
    with server(model, "--grpc-port", str(port), "--workers", "2") as running:
        for _ in range(2):
            running.wait_for("the gRPC port listens")
        for _ in range(6):
            with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
                assert client.infer("tiny", [an_input()]).as_numpy("boxes").shape[0] == 1
        with pytest.raises(StartupError, match=f"{port}: Address already in use"):
            grpc_port_module.check_grpc_port(Settings(grpc_port=port))


@pytest.mark.parametrize(
    ("ports", "words"),
    [
        ({"grpc_port": 0, "workers": 2}, "must be a number"),
        ({"grpc_port": 8000, "port": 8000}, "port of its own"),
        ({"grpc_port": 9000, "metrics_port": 9000}, "port of its own"),
    ],
)
def test_ports_that_cannot_be_had_are_refused(ports: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Settings(**ports)


def test_without_the_extra_the_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_port_module, "find_spec", lambda name: None)
    with pytest.raises(StartupError, match=r"yolox-serve\[grpc\]"):
        grpc_port_module.check_grpc_port(Settings(grpc_port=0))
    grpc_port_module.check_grpc_port(Settings())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
