"""Which requests and images are let in."""

import asyncio
import time

import pytest

from service.errors import DrainingError, QueueFullError
from service.observe.metrics import Metrics
from service.queue import capacity as admission_module
from service.queue.capacity import Admission


def test_no_more_bodies_are_read_than_there_is_room_for() -> None:
    admission = Admission(3, Metrics())
    with admission.admit_image(), admission.admit_request(), admission.admit_request():
        with pytest.raises(QueueFullError):
            admission.admit_request()
        # Requests that are in still get their permits.
        with admission.admit_image(), admission.admit_image():
            pass
    with (
        admission.admit_request(),
        admission.admit_request(),
        admission.admit_request(),
        pytest.raises(QueueFullError),
    ):
        admission.admit_request()
    assert admission.held == 0


def test_a_permit_is_released_once() -> None:
    admission = Admission(2, Metrics())
    with admission.admit_image() as first, admission.admit_image():
        first.release()
        first.release()
        assert admission.held == 1
    assert admission.held == 0


def test_closing_refuses_requests_and_images() -> None:
    admission = Admission(2, Metrics())
    with admission.admit_image():
        admission.close()
        with pytest.raises(DrainingError):
            admission.admit_request()
        assert isinstance(admission.refusal(), DrainingError)
        with pytest.raises(DrainingError):
            admission.admit_image()


def test_drained_waits_for_the_last_permit() -> None:
    async def main() -> None:
        admission = Admission(2, Metrics())
        drained = asyncio.create_task(admission.drained())
        with admission.admit_image(), admission.admit_image():
            admission.close()
            await asyncio.sleep(0)
            assert not drained.done()
        async with asyncio.timeout(10):
            await drained

    asyncio.run(main())


def test_nothing_is_drained_before_admission_is_closed() -> None:
    async def main() -> None:
        admission = Admission(2, Metrics())
        drained = asyncio.create_task(admission.drained())
        with admission.admit_image():
            pass
        await asyncio.sleep(0)
        assert not drained.done()
        admission.close()
        async with asyncio.timeout(10):
            await drained

    asyncio.run(main())


def test_retry_after_follows_the_pace_of_the_queue() -> None:
    admission = Admission(3, Metrics())
    admission.note_pace(2.0)
    for _ in range(3):
        admission.admit_image()
    refusal = admission.refusal()
    assert refusal is not None
    assert refusal.retry_after_s == 6
    admission.note_pace(12.0)
    refusal = admission.refusal()
    assert refusal is not None
    assert refusal.retry_after_s == 9


def test_a_slow_sender_keeps_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    admission = Admission(1, Metrics())
    now = time.monotonic()
    with admission.admit_request():
        with pytest.raises(QueueFullError):
            admission.admit_request()
        monkeypatch.setattr(admission_module.time, "monotonic", lambda: now + 1)
        with admission.admit_request(), pytest.raises(QueueFullError):
            admission.admit_request()
