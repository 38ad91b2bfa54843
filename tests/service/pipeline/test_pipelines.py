"""Both pipelines, and the detector in front of them."""

import asyncio
import gc
import threading
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import service.pipeline.stages as stages_module
from service.build import on_one_thread
from service.core.suppress import DetectionOptions
from service.errors import (
    BusyError,
    DeadlineError,
    InvalidImageError,
    ModelFailedError,
    NotFiniteError,
    QueueFullError,
)
from service.imaging.draw import DrawingPool, DrawingSlot
from service.imaging.memory import ImageMemory
from service.observe.metrics import Metrics
from service.pipeline.jobs import Job
from service.pipeline.one_thread import OneThreadRunner
from service.pipeline.stages import DetectedImage, ImageSource, ImageTask, Stages
from service.settings import Settings
from support.engines import CONTRACT, CpuEngine, FakeEngine
from support.models import OneModel, runnable
from support.pictures import plain

OF_MODEL = {"model": "fake", "version": "1"}


def run_alone(engine: FakeEngine, task: ImageTask) -> list[Any]:
    return OneThreadRunner().run([Job(runnable(engine), task)], [0.0], 1)


def task_for(content: bytes) -> ImageTask:
    return ImageTask(ImageSource(content), DetectionOptions())


@pytest.fixture
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.build.cpus_of_process", lambda _workers: 8)


@pytest.mark.usefixtures("eight_cpus")
@pytest.mark.parametrize(
    ("engine", "settings", "expected"),
    [
        (CpuEngine(), {}, True),
        (CpuEngine(), {"decode_threads": 2}, False),
        (CpuEngine(), {"engine_instances": 2}, False),
        (CpuEngine(), {"engine_threads": 1}, True),
        (FakeEngine(), {}, False),
        (FakeEngine(max_batch=1), {}, False),
    ],
)
def test_images_stay_on_one_thread_where_each_cpu_runs_one(
    engine: FakeEngine, settings: dict[str, Any], *, expected: bool
) -> None:
    assert on_one_thread(Settings(**settings), engine) is expected


@pytest.mark.usefixtures("eight_cpus")
@pytest.mark.parametrize("engine", [FakeEngine(), CpuEngine()], ids=["in batches", "on one thread"])
def test_no_thread_runs_before_the_start(engine: FakeEngine) -> None:
    before = set(threading.enumerate())
    OneModel(Settings(), engine, Metrics())
    assert set(threading.enumerate()) <= before


@pytest.mark.usefixtures("eight_cpus")
def test_a_bad_image_is_neither_a_failure_nor_a_success_of_the_model() -> None:
    metrics = Metrics()

    async def main() -> None:
        engine = CpuEngine()
        server = OneModel(Settings(), engine, metrics)
        await server.start()
        batcher = server.queued
        before, batcher.failures_in_a_row = batcher.last_success, 2
        sources = [ImageSource(b"no image"), ImageSource(plain()[:60])]
        errors = await server.detector.detect_all(sources, DetectionOptions(), time.monotonic() + 9)
        assert [getattr(error, "slug", None) for error in errors] == [
            "unsupported-type",
            "invalid-image",
        ]
        assert (batcher.last_success, batcher.failures_in_a_row) == (before, 2)
        assert len(engine.batches) == 1  # the one that made it ready
        await server.stop()

    asyncio.run(main())
    assert metrics.registry.get_sample_value("yolox_batch_size_count", OF_MODEL) == 1


def test_a_bug_beside_the_model_fails_one_image_only(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = CpuEngine()
    assert len(run_alone(engine, task_for(plain()))[0].detections) == 1
    monkeypatch.setattr(stages_module, "find_objects", lambda *_: 1 // 0)
    (error,) = run_alone(engine, task_for(plain()))
    assert isinstance(error, ZeroDivisionError)


def test_an_error_of_the_engine_fails_the_batch() -> None:
    engine = CpuEngine()
    engine.error = RuntimeError("out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        run_alone(engine, task_for(plain()))


def test_every_stage_is_timed() -> None:
    (image,) = run_alone(CpuEngine(), task_for(plain()))
    seconds = image.seconds
    assert min(seconds.decode, seconds.inference, seconds.postprocess) > 0


@pytest.mark.parametrize("images", [1, 2])
def test_room_for_a_request_is_kept_from_its_body_to_its_images(images: int) -> None:
    async def main() -> None:
        server = OneModel(
            Settings(max_queue_images=images, max_images_per_request=images), CpuEngine(), Metrics()
        )
        await server.start()

        async def arrive_late() -> None:
            with pytest.raises(QueueFullError):
                server.pipeline.arrive()

        sources = [ImageSource(plain())] * images
        read = server.detector.detect_all(sources, DetectionOptions(), time.monotonic() + 9)
        outcomes, _ = await asyncio.gather(read, arrive_late())
        assert [len(outcome.detections) for outcome in outcomes] == [1] * images
        await server.stop()

    asyncio.run(main())


def test_a_client_that_leaves_releases_all_permits() -> None:
    async def main() -> None:
        server = OneModel(
            Settings(max_queue_images=2, max_images_per_request=2), CpuEngine(), Metrics()
        )
        await server.start()
        sources = [ImageSource(plain())] * 2
        work = asyncio.ensure_future(
            server.detector.detect_all(sources, DetectionOptions(), time.monotonic() + 9)
        )
        await asyncio.sleep(0)  # the permits are held, and no image has begun
        assert server.pipeline._admission.held == 2
        work.cancel()
        await asyncio.wait([work])
        assert server.pipeline._admission.held == 0
        await server.stop()

    asyncio.run(main())


def test_a_cut_image_never_reaches_the_engine() -> None:
    engine = CpuEngine()
    (error,) = run_alone(engine, task_for(plain()[:40]))
    assert isinstance(error, InvalidImageError)
    assert engine.batches == []


def test_only_as_many_pictures_are_held_as_there_are_drawing_threads() -> None:
    async def main() -> None:
        pool, busy, decoded = DrawingPool(1), threading.Event(), list[int]()
        pool.start()

        def paint() -> bytes:
            busy.wait()
            return b"done"

        async def picture(number: int) -> bytes:
            with DrawingSlot(pool) as slot:
                await slot.acquire()
                decoded.append(number)
                return await slot.draw(paint)

        first, second, third = [asyncio.create_task(picture(number)) for number in range(3)]
        await asyncio.sleep(0.05)
        # A client that leaves does not free the thread that draws for it.
        first.cancel()
        second.cancel()
        await asyncio.sleep(0.05)
        at_first = list(decoded)
        busy.set()
        assert await third == b"done"
        assert (at_first, decoded) == ([0], [0, 2])
        pool.stop()

    asyncio.run(main())


@pytest.mark.usefixtures("eight_cpus")
@pytest.mark.parametrize(
    ("engine", "threads"),
    [
        (FakeEngine(), ["decode", "engine", "postprocess"]),
        (CpuEngine(), ["engine", "engine", "engine"]),
    ],
    ids=["in batches", "on one thread"],
)
def test_no_stage_blocks_the_event_loop(
    engine: FakeEngine, threads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran_on: list[str] = []

    def noted(stage: Any) -> Any:
        def run(*arguments: Any, **options: Any) -> Any:
            ran_on.append(threading.current_thread().name.partition("_")[0])
            return stage(*arguments, **options)

        return run

    async def main() -> None:
        server = OneModel(Settings(), engine, Metrics())
        await server.start()
        ran_on.clear()  # what made it ready
        deadline = time.monotonic() + 9
        (image,) = await server.detector.detect_all(
            [ImageSource(plain())], DetectionOptions(), deadline
        )
        assert len(image.detections) == 1
        await server.stop()

    monkeypatch.setattr(stages_module, "read_image", noted(stages_module.read_image))
    monkeypatch.setattr(engine, "infer", noted(engine.infer))
    monkeypatch.setattr(stages_module, "find_objects", noted(stages_module.find_objects))
    asyncio.run(main())
    assert ran_on == threads


def test_only_an_image_that_is_drawn_on_keeps_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.imaging.read.SMALL_PIXELS", 0)
    memory = ImageMemory(2**20)
    stages = Stages(CONTRACT, "square", 1_000_000, memory)
    prepared = stages.prepare(task_for(plain()))
    assert prepared.photo is None
    assert memory.free == 2**20
    drawn = stages.prepare(ImageTask(ImageSource(plain()), DetectionOptions(), keep_pixels=True))
    assert memory.free == 2**20 - 13 * 64 * 64
    del drawn
    assert memory.free == 2**20


def with_broken_rows(engine: FakeEngine, value: float, above: float) -> FakeEngine:
    """The engine, giving one value for an image whose mean pixel lies above a bound."""
    whole = engine.rows_of

    def rows_of(pixels: NDArray[np.uint8]) -> NDArray[np.floating]:
        rows = whole(pixels)
        if pixels.mean() > above:
            rows[-1, 3] = value
        return rows

    engine.rows_of = rows_of  # type: ignore[method-assign]
    return engine


@pytest.mark.usefixtures("eight_cpus")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [FakeEngine, CpuEngine])
def test_rows_that_are_not_finite_fail_their_image_alone(
    kind: type[FakeEngine], value: float
) -> None:
    metrics = Metrics()

    async def main() -> None:
        server = OneModel(Settings(), with_broken_rows(kind(), value, 200), metrics)
        await server.start()
        sources = [ImageSource(plain(100)), ImageSource(plain(250)), ImageSource(plain(100))]
        for _ in range(4):
            good, broken, last = await server.detector.detect_all(
                sources, DetectionOptions(), time.monotonic() + 9
            )
            assert isinstance(broken, NotFiniteError)
            assert isinstance(good, DetectedImage)
            assert isinstance(last, DetectedImage)
        assert server.health.unready_reason() is None
        await server.stop()

    asyncio.run(main())
    failed = metrics.registry.get_sample_value(
        "yolox_images_total", {"outcome": "model-failed"} | OF_MODEL
    )
    assert failed == 4


def test_a_photo_that_breaks_the_engine_each_time_leaves_the_server_ready() -> None:
    async def main() -> None:
        engine = FakeEngine()
        rows_of = engine.rows_of

        def breaks_on_white(pixels: NDArray[np.uint8]) -> NDArray[np.floating]:
            if pixels.mean() > 200:
                raise RuntimeError("a kernel failed")
            return rows_of(pixels)

        engine.rows_of = breaks_on_white  # type: ignore[method-assign]
        server = OneModel(Settings(ready_window_s=3), engine, Metrics())
        await server.start()
        for _ in range(5):
            poison = [ImageSource(plain(250))]
            (error,) = await server.detector.detect_all(
                poison, DetectionOptions(), time.monotonic() + 9
            )
            assert isinstance(error, ModelFailedError)
            async with asyncio.timeout(9):
                while server.queued.failures_in_a_row:
                    await asyncio.sleep(0.02)
            assert server.health.unready_reason() is None
        assert server.health.failed_probes == 0
        await server.stop()

    asyncio.run(main())


def test_a_model_that_gives_nan_for_the_probe_is_not_ready_until_it_recovers() -> None:
    async def main() -> None:
        engine = with_broken_rows(FakeEngine(), np.nan, 0)
        server = OneModel(Settings(ready_window_s=0.3), engine, Metrics())
        await server.start()
        assert "NaN" in (server.health.unready_reason() or "")
        with_broken_rows(engine, 0.0, 0)
        async with asyncio.timeout(9):
            while server.health.unready_reason() is not None:
                await asyncio.sleep(0.02)
        await server.stop()

    asyncio.run(main())


@pytest.mark.usefixtures("eight_cpus")
@pytest.mark.parametrize("engine", [FakeEngine(), CpuEngine()], ids=["in batches", "on one thread"])
def test_an_image_that_waits_for_memory_keeps_no_thread_from_the_others(engine: FakeEngine) -> None:
    async def main() -> None:
        server = OneModel(Settings(), engine)
        await server.start()
        memory = server.detector.model.stages.memory
        assert memory is not None
        whole = memory.free
        all_of_it = memory.take(whole)
        late = time.monotonic() + 60

        async def detect(content: bytes) -> Any:
            found = await server.detector.detect_all(
                [ImageSource(content)], DetectionOptions(), late
            )
            return found[0]

        large = plain(width=2000, height=1000)
        # More than there are threads.
        waiting = [asyncio.create_task(detect(large)) for _ in range(20)]
        await asyncio.sleep(0.2)
        assert isinstance(await asyncio.wait_for(detect(plain()), 30), DetectedImage)
        assert not any(task.done() for task in waiting)
        all_of_it.release()
        for found in await asyncio.gather(*waiting):
            assert isinstance(found, DetectedImage), found
            assert found.width == 2000
        # The memory of one is what the next waits for, so it must not wait for the collector.
        del waiting, found
        assert memory.free == whole
        await server.stop()

    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


@pytest.mark.usefixtures("eight_cpus")
def test_an_image_for_which_there_is_no_memory_in_time_is_told_so() -> None:
    async def main() -> None:
        server = OneModel(Settings(), CpuEngine())
        await server.start()
        memory = server.detector.model.stages.memory
        assert memory is not None
        with memory.take(memory.free):
            soon = time.monotonic() + 0.3
            source = ImageSource(plain(width=2000, height=1000))
            found = await server.detector.detect_all([source], DetectionOptions(), soon)
            assert isinstance(found[0], BusyError | DeadlineError), found
        await server.stop()

    asyncio.run(main())
