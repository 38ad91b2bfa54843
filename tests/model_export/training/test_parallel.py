"""Two processes train what one would.

The two are real ones that talk through gloo, and each leaves a file of tensors for the tests to
compare. They run twice: for what they tell each other, and for whole trainings, which take long.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model_export.data.checked_images import check_images
from model_export.data.reading import read_annotations
from model_export.data.sources import DataSource
from model_export.drawing.demo_data import shapes, write_demo_data
from model_export.errors import ModelExportError
from model_export.loss.loss import PRESETS, DetectionLoss
from model_export.loss.presets import PresetName
from model_export.measure.coco import METRIC_NAMES, Metrics
from model_export.model.yolox import YOLOX, build
from model_export.report.events import EpochEnded, RunStarted, StepsTaken
from model_export.samples.loader import Batch
from model_export.samples.settings import augmentation_for
from model_export.samples.targets import Targets
from model_export.training.config import Machine, TrainingConfig
from model_export.training.job import Job
from model_export.training.loop import train
from model_export.training.parallel import SharedBatchNorm, Team, team
from model_export.training.signals import StopRequest, stop_on_signals
from model_export.training.step import TrainingStep, sgd
from support.made_once import made_once
from support.project import ROOT

CPU = torch.device("cpu")
ALONE = Team(CPU)
# An epoch is one step: every step is the end of an epoch, at which the losses are told.
BATCH = 8
STEPS = 3
CLASSES = 4
# A training that hangs is killed after this number of seconds.
PATIENCE_S = 300

# The share of a weight's way that may be rounding: the loss is in float32.
WAY_TOLERANCE = 1e-4
# The tensors that a batch norm computes on, and the type of its parameters.
NORM_TYPES = {torch.float64: torch.float64, torch.bfloat16: torch.float32}
NORM_TOLERANCE = {"rtol": 2e-2, "atol": 2e-2}

State = dict[str, Tensor]


class Diary:
    """The losses of every step; sends this process a signal after one of them, if asked to."""

    def __init__(self, signal_after: int | None = None) -> None:
        self.losses: list[float] = []
        self._signal_after = signal_after

    def started(self, shape: RunStarted) -> None:
        pass

    def sampled(self, step: int, images: Tensor, targets: Targets) -> None:
        pass

    def stepped(self, record: StepsTaken) -> None:
        self.losses.append(record.losses.total)
        if record.step == self._signal_after:
            os.kill(os.getpid(), signal.SIGTERM)

    def epoch_ended(self, record: EpochEnded) -> None:
        pass

    def ended(self) -> None:
        pass


def job(pictures: Path, folder: Path, preset: PresetName) -> Job:
    folder.mkdir()
    source = DataSource(pictures)
    config = TrainingConfig(
        variant="nano",
        data=source,
        validation=source,
        height=64,
        width=64,
        augmentation=replace(augmentation_for("nano"), multiscale_steps=1),
        loss=preset,
        epochs=STEPS,
        closing_epochs=1,
        warmup_epochs=1,
        batch_size=BATCH,
        # Fast enough that weights, statistics and average move visibly in a few steps.
        rate_per_image=0.01 / BATCH,
        average_decay=0.5,
        average_ramp=1,
        evaluate_every=STEPS,
    )
    data = check_images(read_annotations(pictures))
    machine = Machine(device="cpu", workers=0)
    return Job(config, machine, data, folder / "last.pth", folder / "best.pth")


def model(classes: int = CLASSES) -> YOLOX:
    """In float64: in steps this large, float32's rounding soon changes what is assigned to what."""
    torch.manual_seed(0)
    network = build("nano", classes).double()
    network.register_forward_pre_hook(lambda _network, inputs: (inputs[0].double(),))
    # First boxes for whose sizes every level gets one of the few objects, so that all of it learns.
    for layer in network.head.reg_preds:
        nn.init.zeros_(layer.bias)
    return network


def trained(task: Job, members: Team, stop: StopRequest, diary: Diary) -> dict[str, Any]:
    """Train, and tell the losses of the steps and the last weights."""
    network = model()
    metrics = Metrics(dict.fromkeys(METRIC_NAMES, 0.5), {})
    whole = train(task, network, lambda _model: metrics, diary, members, stop)
    return {"whole": whole, "losses": diary.losses, "weights": network.state_dict()}


def drawn_batch() -> Batch:
    """Noise, with a box on each image."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (BATCH, 3, 64, 64), dtype=torch.uint8, generator=generator)
    corners = torch.rand(BATCH, 1, 2, generator=generator) * 30
    boxes = torch.cat([corners, corners + 25], dim=2)
    return Batch(images, Targets(boxes, torch.arange(BATCH)[:, None] % CLASSES))


def learnt_in_parts(batch: Batch, members: Team) -> dict[str, Any]:
    """Learn from a batch in two parts, twice over."""
    network = model().train().to(memory_format=torch.channels_last)  # as `train` does
    optimizer = sgd(network, rate=0.01)
    loss = DetectionLoss(PRESETS["yolox"], divisor=members.fair_divisor)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    take_step = TrainingStep(
        members.share(network), loss, optimizer, scaler, torch.float32, parts=2
    )
    losses = [members.mean(take_step(batch, 0.01, closing=True)) for _ in range(2)]
    return {"losses": torch.stack(losses)[:, 0].tolist(), "weights": network.state_dict()}


def batch_norm(dtype: torch.dtype) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(5, eps=1e-3, momentum=0.03, dtype=dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, 5))
        norm.bias.copy_(torch.linspace(-1, 1, 5))
    return norm


def normalised(norm: nn.BatchNorm2d, dtype: torch.dtype, rows: slice) -> State:
    """A batch norm's output for some rows of a batch, and the statistics that it learns."""
    generator = torch.Generator().manual_seed(2)
    batch, upstream = torch.randn(2, BATCH, 5, 6, 7, dtype=torch.float64, generator=generator)
    # A mean far from 0 punishes the sum of squares; each image has a mean of its own.
    batch = 3 * batch + 100 + torch.arange(BATCH)[:, None, None, None]
    inputs = batch[rows].to(dtype).requires_grad_()
    output = norm(inputs)
    output.backward(upstream[rows].to(dtype))
    with torch.no_grad():
        evaluated = norm.eval()(inputs)
    parameters = {f"{name} gradient": p.grad for name, p in norm.named_parameters()}
    return {
        "output": output.detach(),
        "input gradient": inputs.grad,
        "evaluated": evaluated,
        **parameters,
        **dict(norm.named_buffers()),
    }


def answers(members: Team) -> dict[str, Any]:
    """The messages of the team to each of its processes."""
    number = members.process
    return {
        "leads": members.leads,
        "any": [members.any(number == 1), members.any(number == 0), members.any(flag=False)],
        "mean": members.mean(torch.tensor([number, 3.0])).tolist(),
        "divisors": [members.fair_divisor(torch.tensor(count)).item() for count in (6 * number, 0)],
    }


def messages(_folder: Path, members: Team) -> dict[str, Any]:
    """Let one of the two processes hear the others, and compute its batch norms."""
    rows = slice(4, 8) if members.process else slice(4)
    found: dict[str, Any] = {"answers": answers(members)}
    for dtype, kind in NORM_TYPES.items():
        found[str(dtype)] = normalised(SharedBatchNorm(batch_norm(kind)), dtype, rows)
    return found


def trainings(folder: Path, members: Team) -> dict[str, Any]:
    """Have one of the two processes learn."""
    mine = folder / f"process{members.process}"
    pictures = folder / "train.json"
    found = dict[str, Any]()
    for preset in PRESETS:
        task = job(pictures, mine / preset, preset)
        found[preset] = trained(task, members, StopRequest(), Diary())
    half = list(drawn_batch().split(2))[members.process]
    found["parts"] = learnt_in_parts(half, members)
    with stop_on_signals() as stop:
        task = job(pictures, mine / "stopped", "yolox")
        diary = Diary(signal_after=1 if members.process == 1 else None)
        found["stopped"] = trained(task, members, stop, diary)
    return found


def fail_if_leader(members: Team) -> None:
    if members.leads:
        raise ModelExportError("the disk is full")


def work(folder: Path, lesson: str) -> None:
    """All that one of the two processes does in one run; at the end, the leader fails."""
    lessons = {"messages": messages, "trainings": trainings}
    try:
        with team("cpu") as members:
            mine = folder / f"process{members.process}"
            mine.mkdir()
            torch.save(lessons[lesson](folder, members), mine / "found.pt")
            fail_if_leader(members)
            members.mean(torch.zeros(1))
    except ModelExportError as error:
        (mine / "error.txt").write_text(str(error))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def environment(**more: str) -> dict[str, str]:
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests", Path(__file__).parent)))
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


@contextmanager
def process(*command: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that is gone afterwards, and the processes that it started with it."""
    with subprocess.Popen(
        [sys.executable, *command],
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        watchdog = threading.Timer(PATIENCE_S, started.terminate)
        watchdog.start()
        try:
            yield started
        finally:
            watchdog.cancel()
            if started.poll() is None:
                started.terminate()  # torchrun ends its workers, by force after half a minute
                with suppress(subprocess.TimeoutExpired):
                    started.wait(60)
            started.kill()


def output_of(started: subprocess.Popen[str]) -> str:
    """The output of a process that ends well, its errors too."""
    output, errors = started.communicate()
    assert started.returncode == 0, errors
    return output + errors


@dataclass(frozen=True)
class Pair:
    """The files of two processes, and their folder; `data` is the json of the pictures."""

    found: Sequence[dict[str, Any]]
    folders: Sequence[Path]
    data: Path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_data(tmp_path_factory.mktemp("data"), shapes(64, 0), train=BATCH, val=2)[0]


@pytest.fixture(scope="module")
def talked(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair(tmp_path_factory, "messages")


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair(tmp_path_factory, "trainings")


def pair(factory: pytest.TempPathFactory, lesson: str) -> Pair:
    folder = made_once(factory, lesson, partial(run_pair, lesson))
    folders = [folder / f"process{rank}" for rank in range(2)]
    found = [torch.load(each / "found.pt") for each in folders]
    return Pair(found, folders, folder / "train.json")


def run_pair(lesson: str, folder: Path) -> None:
    """Run the two processes on pictures in the folder; each leaves its files there."""
    write_demo_data(folder, shapes(64, 0), train=BATCH, val=2)
    code = "import sys, pathlib, test_parallel as t; t.work(pathlib.Path(sys.argv[1]), sys.argv[2])"
    # The deprecated of today is the error of tomorrow.
    command = ("-W", "error::FutureWarning", "-c", code, str(folder), lesson)
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    with ExitStack() as stack:
        for started in [
            stack.enter_context(process(*command, RANK=rank, LOCAL_RANK=rank, **common))
            for rank in "01"
        ]:
            assert output_of(started) == ""


def assert_same_course(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Losses, and the way that each weight and statistic has gone."""
    torch.testing.assert_close(found["losses"], expected["losses"], rtol=1e-5, atol=0)
    assert_same_way(found["weights"], expected["weights"])


def assert_same_way(found: State, expected: State) -> None:
    start = model().state_dict()
    assert found.keys() == expected.keys() == start.keys()
    for name, first in start.items():
        way, error = (expected[name] - first).double(), (found[name] - expected[name]).double()
        assert way.norm() > 0, name
        assert error.norm() <= WAY_TOLERANCE * way.norm(), name


@pytest.mark.heavy
@pytest.mark.parametrize("preset", PRESETS)
def test_two_processes_train_what_one_would(
    learnt: Pair, preset: PresetName, tmp_path: Path
) -> None:
    task = job(learnt.data, tmp_path / "alone", preset)
    alone = trained(task, ALONE, StopRequest(), Diary())

    assert len(alone["losses"]) == STEPS
    for found in learnt.found:
        assert found[preset]["whole"]
        assert_same_course(found[preset], alone)
    saved = torch.load(learnt.folders[0] / preset / "last.pth")
    assert_same_way(saved["model"], torch.load(task.last)["model"])


@pytest.mark.heavy
def test_two_processes_learn_in_parts_what_one_would(learnt: Pair) -> None:
    # Each process splits its half in two: a part of the joined batch has two images of each half.
    order = torch.tensor([0, 1, 4, 5, 2, 3, 6, 7])
    images, (boxes_xyxy, class_ids) = drawn_batch()
    batch = Batch(images[order], Targets(boxes_xyxy[order], class_ids[order]))
    alone = learnt_in_parts(batch, ALONE)

    for found in learnt.found:
        assert_same_course(found["parts"], alone)


@pytest.mark.heavy
def test_processes_agree_to_the_last_bit(learnt: Pair) -> None:
    for name in (*PRESETS, "parts", "stopped"):
        first, second = (found[name]["weights"] for found in learnt.found)
        assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.heavy
def test_the_leader_alone_writes_files(learnt: Pair) -> None:
    written = [sorted(path.name for path in folder.rglob("*.pth")) for folder in learnt.folders]

    assert written == [["best.pth", "best.pth", "last.pth", "last.pth", "last.pth"], []]


@pytest.mark.heavy
def test_a_signal_to_one_process_stops_both_after_the_same_step(learnt: Pair) -> None:
    for found in learnt.found:
        assert not found["stopped"]["whole"]
        assert len(found["stopped"]["losses"]) == 2
    saved = torch.load(learnt.folders[0] / "stopped" / "last.pth")
    assert saved["training"]["step"] == 2
    weights = learnt.found[1]["stopped"]["weights"]
    assert all(torch.equal(weights[key], v) for key, v in saved["training"]["weights"].items())


def test_a_process_that_fails_ends_the_others_with_an_error_they_can_tell(talked: Pair) -> None:
    errors = [(folder / "error.txt").read_text() for folder in talked.folders]

    assert errors == ["the disk is full", "another process of this training ended before it"]


def test_processes_hear_the_same_answers(talked: Pair) -> None:
    same = {"any": [True, True, False], "mean": [0.5, 3.0], "divisors": [3.0, 0.5]}

    assert [found["answers"] for found in talked.found] == [
        {"leads": True, **same},
        {"leads": False, **same},
    ]


@pytest.mark.parametrize("dtype", NORM_TYPES)
def test_a_shared_batch_norm_is_one_of_the_joined_batch(talked: Pair, dtype: torch.dtype) -> None:
    expected = normalised(batch_norm(NORM_TYPES[dtype]), dtype, slice(None))
    halves = [found[str(dtype)] for found in talked.found]
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else NORM_TOLERANCE

    for name in ("output", "input gradient", "evaluated"):
        joined = torch.cat([half[name] for half in halves])
        torch.testing.assert_close(joined, expected[name], **tolerance)
    for name in ("weight gradient", "bias gradient"):  # each process has a share of the sum
        total = halves[0][name] + halves[1][name]
        torch.testing.assert_close(total, expected[name], **tolerance)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        for half in halves:
            torch.testing.assert_close(half[name], expected[name], **tolerance)


def test_a_shared_batch_norm_evaluates_alone() -> None:
    norm = batch_norm(torch.float32).eval()
    shared = SharedBatchNorm(norm)
    images = torch.randn(2, 5, 4, 4)

    assert not shared.training
    torch.testing.assert_close(shared(images), norm(images), rtol=0, atol=0)


def test_a_process_without_torchrun_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    network = nn.BatchNorm2d(3)

    with team("cpu") as members:
        assert members == ALONE
        assert answers(members) == {
            "leads": True,
            "any": [False, True, False],
            "mean": [0, 3],
            "divisors": [1, 1],
        }
        assert members.share(network) is network


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(ModelExportError, match="--device cpu"), team("cuda"):
        pass


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")

    with pytest.raises(ModelExportError, match="more processes than there are GPUs: 1"):
        team("auto").__enter__()


@pytest.mark.parametrize(("processes", "accumulate"), [(3, 1), (2, 3), (16, 1)])
def test_a_batch_that_cannot_be_shared_equally_is_refused(
    tmp_path: Path, data: Path, processes: int, accumulate: int
) -> None:
    config = replace(job(data, tmp_path / "job", "yolox").config, accumulate=accumulate)

    with pytest.raises(ModelExportError, match=f"by {processes} processes in {accumulate} "):
        config.share_of_batch(processes)


def torchrun(folder: Path, data: Path, *arguments: str) -> tuple[str, ...]:
    """The command of a training in two processes."""
    return (
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        *("-m", "model_export", "train", "--device", "cpu", "--workers", "0", "--size", "64"),
        *("--data", str(data), "--val", str(data.with_name("val.json"))),
        *("--output", str(folder), "--batch-size", str(BATCH), *arguments),
    )


@pytest.mark.heavy
def test_torchrun_leaves_a_whole_run_and_says_everything_once(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with process(*torchrun(folder, data, "--epochs", "2")) as started:
        output, errors = started.communicate()

    assert (started.returncode, output) == (0, f"{folder}\n"), errors
    beginnings = [line.split("  ")[0].split(":")[0] for line in errors.splitlines()]
    told = [line for line in beginnings if "epoch" in line]
    assert told == ["epoch 1/2", "epoch 2/2", "best epoch 1"], errors
    # Before them come the device, and a look at the data.
    assert sum(line.startswith("8 images (") for line in beginnings) == 1
    assert (folder / "model.onnx").is_file()


@pytest.mark.heavy
def test_a_torchrun_that_is_stopped_saves_first(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ("--epochs", "9999", "--evaluate-every", "9999")
    with process(*torchrun(folder, data, *arguments)) as started:
        assert started.stderr is not None
        assert any(line.startswith("epoch 1/") for line in started.stderr)
        started.terminate()
        output, errors = started.communicate()

    assert (started.returncode, output) == (1, "")
    assert f"--resume {folder}" in errors
    training = torch.load(folder / "last.pth")["training"]
    done = len((folder / "metrics.csv").read_text().splitlines()) - 1
    assert training["step"] == done > 0
    assert not list(folder.glob("*.part"))
