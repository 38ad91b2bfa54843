"""A request of several images whose deadline passes is answered with the images that are done."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from support.client import boxes, metric, problem, serving
from support.engines import CpuEngine, FakeEngine
from support.pictures import plain

QUICK, SLOW = 10, 200
IN_ORDER = {"engine_instances": 1, "engine_threads": 1, "decode_threads": 1}


class SlowAtBrightImages(FakeEngine):
    """Waits for `gate` with a bright image, and not with a dark one."""

    def __init__(self) -> None:
        super().__init__()
        self.max_batch = 1
        self.release = threading.Event()

    def infer(self, images: Sequence[NDArray[np.uint8]], span: int = 1) -> NDArray[np.floating]:
        if images[0].mean() > SLOW - 10:
            self.release.wait(10)
        return super().infer(images, span)


class SlowOnCpu(SlowAtBrightImages, CpuEngine):
    """The same on a CPU."""


@pytest.fixture(params=[SlowAtBrightImages, SlowOnCpu], ids=["in batches", "on one thread"])
def engine(request: pytest.FixtureRequest) -> SlowAtBrightImages:
    made = request.param()
    assert isinstance(made, SlowAtBrightImages)
    return made


def send(client: TestClient, contents: Sequence[bytes], **options: Any) -> Any:
    files = [("images", (str(at), content)) for at, content in enumerate(contents)]
    return client.post("/detect", files=files, params={"timeout_ms": 400} | options)


def test_what_is_done_at_the_deadline_is_answered(engine: SlowAtBrightImages) -> None:
    with serving(engine, **IN_ORDER) as client:
        grays = (QUICK, QUICK, SLOW, QUICK)
        response = send(client, [plain(gray) for gray in grays])
        assert [len(found) for found in boxes(response)] == [1, 1, 0, 0]
        results = response.json()["results"]
        assert results[0]["error"] is results[1]["error"] is None
        for late in results[2:]:
            assert late["error"]["status"] == 504
            assert late["error"]["title"] == "Deadline passed"
            assert "this image" in late["error"]["detail"] or "the image" in late["error"]["detail"]
            assert (late["width"], late["height"]) == (None, None)
        assert "retry-after" not in response.headers
        assert metric(client, 'yolox_images_total{outcome="deadline-passed"}') == 2
        assert metric(client, 'yolox_requests_total{endpoint="/detect",status="200"}') == 1
        engine.release.set()
        assert [len(found) for found in boxes(send(client, [plain(SLOW)] * 2))] == [1, 1]
        assert metric(client, "yolox_queue_images") == 0


def test_a_request_of_which_nothing_is_done_is_504(engine: SlowAtBrightImages) -> None:
    with serving(engine, **IN_ORDER) as client:
        problem(send(client, [plain(SLOW)] * 3), 504, "deadline-passed")
        problem(send(client, [plain(SLOW), b"text"]), 504, "deadline-passed")
        engine.release.set()


def test_a_deadline_in_the_form_counts_as_well(engine: SlowAtBrightImages) -> None:
    with serving(engine, **IN_ORDER) as client:
        files = [("images", ("a", plain(QUICK))), ("images", ("b", plain(SLOW)))]
        response = client.post("/detect", files=files, data={"timeout_ms": 400})
        assert [len(found) for found in boxes(response)] == [1, 0]
        engine.release.set()


def test_a_client_that_leaves_takes_all_its_images_along(engine: SlowAtBrightImages) -> None:
    left = asyncio.Event()
    statuses: list[int] = []

    async def leave(app: Any) -> None:
        client_body = [multipart(plain(QUICK), plain(SLOW), plain(SLOW))]

        async def receive() -> dict[str, Any]:
            if client_body:
                return {"type": "http.request", "body": client_body.pop(), "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        async def answer(message: Any) -> None:
            if "status" in message:
                statuses.append(message["status"])

        request = asyncio.create_task(app(scope(), receive, answer))
        while not app.running.pipeline._batcher._queue:
            await asyncio.sleep(0.001)
        left.set()
        await asyncio.wait_for(request, 5)

    with serving(engine, **IN_ORDER) as client:
        assert client.portal is not None
        client.portal.call(leave, client.app)
        assert statuses == [499]
        assert metric(client, 'yolox_images_total{outcome="deadline-passed"}') == 0
        assert metric(client, 'yolox_images_total{outcome="client-left"}') >= 2
        engine.release.set()


def multipart(*images: bytes) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    return b"".join(head + image + b"\r\n" for image in images) + b"--b--\r\n"


def scope() -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": "/detect",
        "raw_path": b"/detect",
        "query_string": b"",
        "headers": [(b"content-type", b"multipart/form-data; boundary=b")],
    }


def test_many_requests_with_late_images_leave_no_place_taken(engine: SlowAtBrightImages) -> None:
    with serving(engine, **IN_ORDER) as client, ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(send, client, [plain(SLOW)] * 4, timeout_ms=100) for _ in range(8)]
        for answer in sent:
            problem(answer.result(timeout=10), 504, "deadline-passed")
        engine.release.set()
        assert metric(client, "yolox_queue_images") == 0
        assert [len(found) for found in boxes(send(client, [plain(QUICK)] * 2))] == [1, 1]
