"""The overhead benchmark: its engine, images, bodies and floor, and what it makes of wrk."""

import io
import os
import time

import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.http.app import create_app
from service.settings import Settings
from support.scripts import benchmark

overhead, servers = benchmark("overhead"), benchmark("overhead_servers")


@pytest.mark.parametrize("kind", overhead.KINDS)
def test_images_are_small_pictures_in_files_of_64_kib(kind: str) -> None:
    content = overhead.image_file(kind)
    assert len(content) == 64 * 1024
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == kind.upper()
        assert picture.size == (servers.SIDE, servers.SIDE)
        assert picture.getpixel((9, 9)) == (128, 128, 128)


@pytest.mark.parametrize("form", overhead.BODIES)
@pytest.mark.parametrize("boxes", [0, 5, servers.MOST_BOXES])
def test_every_form_is_answered_with_as_many_boxes_as_asked(form: str, boxes: int) -> None:
    body = overhead.BODIES[form](overhead.image_file("bmp"))
    with TestClient(create_app(Settings(), servers.FreeEngine(boxes))) as client:
        headers = {"Content-Type": body.content_type}
        answer = client.post("/detect", content=body.content, headers=headers)
    assert answer.status_code == 200
    found = answer.json()["results"][0]["detections"]
    assert {detection["class_id"] for detection in found} == set(range(boxes))


def test_the_floor_gives_the_answer_it_was_given() -> None:
    answer = servers.Answer(b"{}", ((b"content-type", b"application/json"),))
    given = TestClient(servers.answering(answer)).post("/detect", content=b"." * 100_000)
    assert (given.content, given.headers["content-type"]) == (b"{}", "application/json")


def test_what_wrk_counted_is_read() -> None:
    totals = overhead.run_wrk(["echo", "Running\n\ntotals 900 0 0 1.5 7.25"])
    assert totals == overhead.Totals(900, (1.5, 7.25))


@pytest.mark.parametrize("counts", ["10 1 0", "10 0 2", "0 0 0"])
def test_a_load_with_failed_requests_is_an_error(counts: str) -> None:
    with pytest.raises(SystemExit, match=r"of [01]+ requests"):
        overhead.run_wrk(["echo", f"\ntotals {counts} 1 1"])


def test_refusals_are_a_load_where_all_requests_are_refused() -> None:
    totals = overhead.run_wrk(["echo", "\ntotals 900 900 0 1 1"], refused=True)
    assert totals.requests == 900
    with pytest.raises(SystemExit, match="of 900 requests 899 were refused"):
        overhead.run_wrk(["echo", "\ntotals 900 899 0 1 1"], refused=True)


def test_a_wrk_that_fails_is_an_error() -> None:
    with pytest.raises(SystemExit, match="unable to connect"):
        overhead.run_wrk(["sh", "-c", "echo unable to connect; exit 1"])


def test_without_wrk_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.argv", ["overhead.py"])
    with pytest.raises(SystemExit, match="apt-get install wrk"):
        overhead.main()


def test_cpu_time_is_that_of_the_whole_process() -> None:
    assert overhead.cpu_seconds(os.getpid()) == pytest.approx(time.process_time(), abs=0.1)
