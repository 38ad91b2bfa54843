"""Samples become batches, the same in any number of workers and processes."""

import multiprocessing
import os
import pickle
import signal
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from model_export.data.checked_images import check_images
from model_export.data.forms.coco import read_coco
from model_export.data.image_cache import ImageCache
from model_export.data.pictures import FilePictures
from model_export.errors import ModelExportError
from model_export.samples.batch_plan import BatchPlan, SampleSpec
from model_export.samples.loader import Batch, TrainingSamples, training_batches
from model_export.samples.settings import Augmentation
from support.data_sets import annotation, coco_json


@pytest.fixture
def pictures(tmp_path: Path) -> FilePictures:
    """Six small images with a box each."""
    path = coco_json(tmp_path, [annotation(10 + i, 4, 5 * i, 4, 20, 30) for i in range(6)], count=6)
    return check_images(read_coco(path, tmp_path).targets()).pictures(None)


def batches_of(pictures: FilePictures, workers: int, method: str | None = None) -> list[Batch]:
    return list(batches_from(pictures, workers, method))


def batches_from(
    pictures: FilePictures, workers: int, method: str | None = None, *, in_step: bool = False
) -> Generator[Batch, None, None]:
    samples = TrainingSamples(pictures, Augmentation(mosaic_probability=0.7), seed=5)
    plan = BatchPlan(len(pictures), 4, 3, 1, 64, 64, size_changes=(1, 1), seed=5)
    context = multiprocessing.get_context(method) if method else None
    return training_batches(samples, plan, workers=workers, in_step=in_step, context=context)


def test_samples_from_the_cache_are_the_same(pictures: FilePictures, tmp_path: Path) -> None:
    cached = replace(pictures, cache=ImageCache(tmp_path / "cache"))
    for _ in range(2):
        for plain, other in zip(batches_of(pictures, 0), batches_of(cached, 0), strict=True):
            assert torch.equal(plain.images, other.images)


# Newer Pythons warn of every fork of a process with threads, and torch has threads.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("workers", "method", "in_step"),
    [(1, "fork", False), (2, "fork", False), (2, "fork", True), (2, "spawn", False)],
)
def test_samples_do_not_depend_on_the_workers(
    pictures: FilePictures, workers: int, method: str, *, in_step: bool
) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    expected = batches_of(pictures, 0)
    found = list(batches_from(pictures, workers, method, in_step=in_step))

    assert len(found) == len(expected) == 6
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one.images, other.images)
        assert other.images.stride() == one.images.stride()
        assert torch.equal(one.targets.boxes_xyxy, other.targets.boxes_xyxy)
        assert torch.equal(one.targets.class_ids, other.targets.class_ids)


@dataclass(frozen=True)
class CountedPlan(BatchPlan):
    """A plan that counts the batches that were drawn of it."""

    drawn: list[int] = field(default_factory=list)

    def __iter__(self) -> Iterator[list[SampleSpec]]:
        for batch in super().__iter__():
            self.drawn.append(len(batch))
            yield batch


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize(("in_step", "drawn"), [(False, [1, 1, 1]), (True, [0, 2, 0])])
def test_workers_in_step_begin_their_next_batches_at_the_same_time(
    pictures: FilePictures, *, in_step: bool, drawn: list[int]
) -> None:
    # 17 batches: the last one is alone.
    plan = CountedPlan(len(pictures), 4, 9, 0, 64, 64, start=1)
    samples = TrainingSamples(pictures, Augmentation(), seed=0)
    with closing(training_batches(samples, plan, workers=2, in_step=in_step)) as batches:
        counts = []
        for _ in range(4):
            next(batches)
            counts.append(len(plan.drawn))
        assert [after - before for before, after in pairwise(counts)] == drawn
        assert sum(1 for _ in batches) == 13


def test_a_batch_is_of_one_size_and_pads_its_targets(pictures: FilePictures) -> None:
    for batch in batches_of(pictures, 0):
        count, channels, height, width = batch.images.shape
        assert (count, channels) == (4, 3)
        assert height == width
        assert height in (32, 64, 96)
        assert batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        boxes, ids = batch.targets
        assert boxes.shape == (*ids.shape, 4)
        assert (ids[:, 0] >= -1).all()
        assert boxes.dtype == torch.float32
        assert ids.dtype == torch.int64
        assert (boxes[ids < 0] == 0).all()
        assert (boxes[ids >= 0][:, 2:] > boxes[ids >= 0][:, :2]).all()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_an_image_that_vanishes_is_named_from_within_a_worker(pictures: FilePictures) -> None:
    path = pictures.images[3].path
    path.unlink()
    with pytest.raises(ModelExportError) as caught:
        batches_of(pictures, 1)
    assert str(caught.value).startswith(f"cannot read the image {path}: ")
    assert "Traceback" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_workers_end_with_an_error_that_somebody_holds_on_to(pictures: FilePictures) -> None:
    others = set(multiprocessing.active_children())

    def fail_on_the_first() -> None:
        with closing(batches_from(pictures, 1)) as batches:
            for _ in batches:
                assert set(multiprocessing.active_children()) > others
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fail_on_the_first()
    pictures.images[3].path.unlink()
    with pytest.raises(ModelExportError) as also_caught:
        batches_of(pictures, 1)
    assert set(multiprocessing.active_children()) <= others
    del caught, also_caught


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_workers_leave_ctrl_c_to_the_trainer(pictures: FilePictures) -> None:
    samples = TrainingSamples(pictures, Augmentation(), seed=0)
    plan = BatchPlan(len(pictures), 2, 8, 0, 64, 64)
    batches = training_batches(samples, plan, workers=1)
    next(batches)
    for child in multiprocessing.active_children():
        if child.pid:
            os.kill(child.pid, signal.SIGINT)
    assert sum(1 for _ in batches) == len(plan) - 1


def test_samples_can_be_sent_to_other_processes(pictures: FilePictures) -> None:
    samples = TrainingSamples(pictures, Augmentation(), seed=0)
    copy = pickle.loads(pickle.dumps(samples))  # noqa: S301
    spec = SampleSpec(1, 0, 64, 64)
    assert torch.equal(copy[spec].image, samples[spec].image)


def test_an_epoch_takes_every_image_once_and_then_fills_its_last_batch() -> None:
    plan = BatchPlan(10, 4, 2, 1, 64, 64)
    first, second = np.array_split([spec for batch in plan for spec in batch], 2)
    assert sorted(spec.index for spec in first[:10]) == list(range(10))
    assert [spec.index for spec in first] != [spec.index for spec in second]
    assert [spec.draw for spec in first] == [0] * 10 + [1] * 2
    assert {(spec.epoch, spec.closing) for spec in first} == {(0, False)}
    assert {(spec.epoch, spec.closing) for spec in second} == {(1, True)}


def test_few_images_fill_a_batch_with_different_samples() -> None:
    (batch,) = BatchPlan(3, 8, 1, 0, 64, 64)
    assert len({(spec.index, spec.draw) for spec in batch}) == 8


@pytest.mark.parametrize("start", [0, 1, 3, 7, 12])
def test_a_resumed_run_takes_the_batches_that_were_left(start: int) -> None:
    plan = BatchPlan(10, 4, 4, 1, 416, 416, size_changes=(3, 7), seed=3)
    resumed = replace(plan, start=start)
    assert list(resumed) == list(plan)[start:]
    assert len(resumed) == len(list(resumed)) == 12 - start


def test_processes_together_take_what_one_would() -> None:
    alone = BatchPlan(10, 4, 2, 0, 416, 416, size_changes=(3, 7))
    pair = [replace(alone, batch_size=2, processes=2, process=process) for process in (0, 1)]
    joined = [first + second for first, second in zip(*pair, strict=True)]
    assert joined == list(alone)
