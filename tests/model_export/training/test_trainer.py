"""The training loop, on a few drawn pictures."""

import json
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model_export.data.checked_images import CheckedImages, check_images
from model_export.data.reading import read_annotations
from model_export.data.sources import DataSource, Share
from model_export.drawing.demo_data import shapes, write_demo_data
from model_export.errors import ModelExportError
from model_export.loss.loss import PRESETS, DetectionLoss
from model_export.measure.coco import METRIC_NAMES, Metrics
from model_export.model.about import About, read_about
from model_export.model.checkpoint import read_state_dict
from model_export.model.yolox import build
from model_export.report.events import EpochEnded, RunStarted, StepsTaken
from model_export.samples.batch_plan import BatchPlan, SampleSpec
from model_export.samples.loader import Batch
from model_export.samples.settings import Augmentation, augmentation_for
from model_export.samples.targets import Targets
from model_export.training.config import DrawnBarcodes, Machine, TrainingConfig
from model_export.training.job import Job
from model_export.training.loop import train
from model_export.training.parallel import Team
from model_export.training.signals import StopRequest, stop_on_signals
from model_export.training.state import TrainingState, best_epoch, save_weights
from model_export.training.step import TrainingStep, WeightAverage, arithmetic, sgd
from service.core.contract import InputSpec, ModelContract

CPU = torch.device("cpu")
IMAGES = 6
BATCH = 4
EPOCH_STEPS = 2
ABOUT = About("nano", "decoupled", ModelContract("n", "1", InputSpec("x", 64, 64), ("a", "b")), {})


class Diary:
    """Everything that a training says; `on_step` is called with the step after each record."""

    def __init__(self, on_step: Callable[[int], None] = lambda _step: None) -> None:
        self.shape: RunStarted | None = None
        self.sampled_at: list[int] = []
        self.steps: list[StepsTaken] = []
        self.epochs: list[EpochEnded] = []
        self._on_step = on_step

    def started(self, shape: RunStarted) -> None:
        self.shape = shape

    def sampled(self, step: int, images: Tensor, targets: Targets) -> None:
        assert images.dtype == torch.uint8
        assert len(images) == len(targets.class_ids) == BATCH
        self.sampled_at.append(step)

    def stepped(self, record: StepsTaken) -> None:
        self.steps.append(record)
        self._on_step(record.step)

    def epoch_ended(self, record: EpochEnded) -> None:
        self.epochs.append(record)

    def ended(self) -> None:
        pass


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> CheckedImages:
    folder = tmp_path_factory.mktemp("pictures")
    write_demo_data(folder, shapes(96, 0), train=IMAGES, val=1)
    return check_images(read_annotations(folder / "train.json"))


@pytest.fixture(autouse=True)
def _record_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_export.training.loop.STEPS_PER_READING", 1)


def config(**changes: object) -> TrainingConfig:
    source = DataSource(Path("unused"))
    plain = TrainingConfig(
        variant="nano",
        data=source,
        validation=source,
        height=64,
        width=64,
        augmentation=replace(augmentation_for("nano"), multiscale_steps=1),
        epochs=3,
        closing_epochs=1,
        warmup_epochs=1,
        batch_size=BATCH,
    )
    return replace(plain, **changes)


def metrics(ap: float | None) -> Metrics:
    return Metrics({**dict.fromkeys(METRIC_NAMES), "AP": ap}, {})


def run(
    pictures: CheckedImages,
    folder: Path,
    diary: Diary,
    *,
    stop: StopRequest | None = None,
    resume: bool = False,
    measure: Callable[[nn.Module], Metrics] = lambda _model: metrics(0.5),
    **changes: object,
) -> bool:
    settings = config(**changes)
    folder.mkdir(exist_ok=True)
    job = Job(
        settings,
        Machine(device="cpu", workers=0),
        pictures,
        folder / "last.pth",
        folder / "best.pth",
        resume,
    )
    torch.manual_seed(settings.seed)
    model = build("nano", len(pictures.class_names))
    return train(job, model, measure, diary, Team(CPU), stop or StopRequest())


def final_state(path: Path) -> dict[str, Tensor]:
    """Every tensor of a saved training by a name of its own."""
    content = torch.load(path, weights_only=True)
    momenta = content["training"]["optimizer"]["state"]
    return {
        **{f"average {name}": value for name, value in content["model"].items()},
        **{f"weights {name}": value for name, value in content["training"]["weights"].items()},
        **{f"momentum {i}": value["momentum_buffer"] for i, value in momenta.items()},
    }


def test_training_tells_its_shape_steps_samples_and_epochs(
    pictures: CheckedImages, tmp_path: Path
) -> None:
    diary = Diary()

    assert run(pictures, tmp_path, diary)

    assert diary.shape == RunStarted(epochs=3, epoch_steps=EPOCH_STEPS, first_step=0, batch_size=4)
    assert [record.step for record in diary.steps] == [0, 1, 2, 3, 4, 5]
    assert diary.sampled_at == [0, 2, 4]
    assert [record.number for record in diary.epochs] == [0, 1, 2]
    for epoch, (first, second) in enumerate(zip(diary.steps[::2], diary.steps[1::2], strict=True)):
        mean = (first.losses.total + second.losses.total) / 2
        assert diary.epochs[epoch].losses.total == pytest.approx(mean, rel=1e-5)
    for record in diary.steps:
        parts = record.losses
        total = parts.box + parts.objectness + parts.classification + parts.l1
        assert parts.total == pytest.approx(total, rel=1e-5)


def test_l1_counts_in_the_closing_epochs_alone(pictures: CheckedImages, tmp_path: Path) -> None:
    diary = Diary()

    run(pictures, tmp_path, diary)

    assert [record.losses.l1 > 0 for record in diary.epochs] == [False, False, True]


def test_learning_rate_follows_the_schedule(pictures: CheckedImages, tmp_path: Path) -> None:
    diary = Diary()

    run(pictures, tmp_path, diary, rate_per_image=0.001)

    rates = [record.rate for record in diary.steps]
    peak = 0.001 * BATCH
    assert rates[:2] == pytest.approx([peak / 4, peak])
    assert rates[2] > rates[3]
    assert rates[4:] == pytest.approx([peak * 0.05] * 2)


def test_resumed_training_gives_the_same_numbers(pictures: CheckedImages, tmp_path: Path) -> None:
    whole = Diary()
    run(pictures, tmp_path / "whole", whole)

    stop = StopRequest()

    def stop_in_the_second_epoch(step: int) -> None:
        stop.number = signal.SIGTERM if step == 2 else 0

    begun, resumed = Diary(stop_in_the_second_epoch), Diary()
    assert not run(pictures, tmp_path / "parts", begun, stop=stop)
    assert run(pictures, tmp_path / "parts", resumed, resume=True)

    assert [record.step for record in begun.steps] == [0, 1, 2]
    assert [record.step for record in resumed.steps] == [3, 4, 5]
    losses = [record.losses for record in (*begun.steps, *resumed.steps)]
    assert losses == [record.losses for record in whole.steps]
    expected = final_state(tmp_path / "whole" / "last.pth")
    found = final_state(tmp_path / "parts" / "last.pth")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_seed_decides_the_numbers(pictures: CheckedImages, tmp_path: Path) -> None:
    first, again, other = Diary(), Diary(), Diary()

    run(pictures, tmp_path / "a", first, epochs=1, seed=3)
    run(pictures, tmp_path / "b", again, epochs=1, seed=3)
    run(pictures, tmp_path / "c", other, epochs=1, seed=4)

    assert [r.losses for r in first.steps] == [r.losses for r in again.steps]
    assert [r.losses for r in first.steps] != [r.losses for r in other.steps]


def test_steps_follow_the_configuration(
    pictures: CheckedImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[TrainingStep] = []

    def step(*parts: Any) -> TrainingStep:
        steps.append(TrainingStep(*parts))
        return steps[-1]

    monkeypatch.setattr("model_export.training.loop.TrainingStep", step)
    run(
        pictures,
        tmp_path,
        Diary(),
        epochs=1,
        loss="article",
        class_weight=3.0,
        box_coding="anchor_point",
        center_radius=2.5,
        accumulate=2,
        momentum=0.75,
        weight_decay=0.01,
    )

    (made,) = steps
    preset = replace(PRESETS["article"], class_weight=3.0)
    assert made.loss.preset == preset
    assert (made.loss.coding, made.loss.center_radius, made.parts) == ("anchor_point", 2.5, 2)
    groups = made.optimizer.param_groups
    assert {group["momentum"] for group in groups} == {0.75}
    assert {group["weight_decay"] for group in groups} == {0.0, 0.01}


def test_batches_follow_the_configuration(pictures: CheckedImages, tmp_path: Path) -> None:
    augmentation = replace(augmentation_for("nano"), multiscale_steps=2)
    settings = config(height=96, width=128, seed=7, augmentation=augmentation)

    job = Job(settings, Machine(), pictures, tmp_path / "last.pth", tmp_path / "best.pth")

    assert job.plan(Team(CPU), start=3) == BatchPlan(
        images=IMAGES,
        batch_size=BATCH,
        epochs=3,
        closing_epochs=1,
        height=96,
        width=128,
        size_changes=(2, 2),
        seed=7,
        start=3,
    )


def test_seed_decides_the_samples(pictures: CheckedImages, tmp_path: Path) -> None:
    def sample(seed: int) -> bytes:
        last, best = tmp_path / "last.pth", tmp_path / "best.pth"
        job = Job(config(seed=seed), Machine(), pictures, last, best)
        return job.samples()[SampleSpec(0, 0, 64, 64)].image.numpy().tobytes()

    assert sample(3) == sample(3)
    assert sample(3) != sample(4)


def test_best_file_is_the_average_of_the_best_epoch(
    pictures: CheckedImages, tmp_path: Path
) -> None:
    seen: list[dict[str, Tensor]] = []
    # The closing epoch is measured with three kinds of statistics.
    aps = iter([0.2, 0.6, None, None, None])

    def measure(model: nn.Module) -> Metrics:
        assert not model.training
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return metrics(next(aps))

    diary = Diary()
    run(pictures, tmp_path, diary, measure=measure)

    best = read_state_dict(tmp_path / "best.pth")
    assert all(torch.equal(best[name], seen[1][name]) for name in best)
    last = read_state_dict(tmp_path / "last.pth")
    weights = [name for name in last if "running" not in name and "tracked" not in name]
    assert all(torch.equal(last[name], seen[2][name]) for name in weights)
    assert [r.metrics and r.metrics.overall["AP"] for r in diary.epochs] == [0.2, 0.6, None]


def test_checkpoints_say_what_they_belong_to(pictures: CheckedImages, tmp_path: Path) -> None:
    run(pictures, tmp_path, Diary(), epochs=1, box_coding="anchor_point", fixed_size=True)

    best, last = read_about(tmp_path / "best.pth"), read_about(tmp_path / "last.pth")
    assert best is not None
    assert last is not None
    assert (best.variant, best.head, best.metrics["AP"]) == ("nano", "decoupled", 0.5)
    assert best.contract == last.contract
    assert best.contract.class_names == pictures.class_names
    assert best.contract.box_coding == "anchor_point"
    assert best.contract.input == InputSpec("images", 64, 64)


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"variant": "huge"}'])
def test_checkpoint_that_says_what_nobody_understands_is_an_error(
    tmp_path: Path, text: str
) -> None:
    torch.save({"model": {}, "about": text}, tmp_path / "odd.pth")

    with pytest.raises(ModelExportError, match="in a way that this release does not know"):
        read_about(tmp_path / "odd.pth")


def test_measured_average_has_the_statistics_of_its_own_activations(
    pictures: CheckedImages, tmp_path: Path
) -> None:
    measured: list[dict[str, Tensor]] = []

    def measure(model: nn.Module) -> Metrics:
        measured.append({name: value.clone() for name, value in model.state_dict().items()})
        return metrics(0.5)

    for norm_images in (0, 4):
        run(
            pictures,
            tmp_path / str(norm_images),
            Diary(),
            epochs=1,
            closing_epochs=0,
            norm_images=norm_images,
            measure=measure,
        )

    averaged, anew = measured
    first = "backbone.backbone.stem.conv.bn.running_var"
    kernel = "backbone.backbone.stem.conv.conv.weight"
    assert torch.equal(averaged[kernel], anew[kernel])
    # Two steps with a momentum of 3 % leave most of the 1 that it began with; pixels give far more.
    assert (anew[first] > 10 * averaged[first]).float().mean() > 0.5
    last = read_state_dict(tmp_path / "4" / "last.pth")
    assert torch.equal(last[first], averaged[first])


def test_closing_epochs_measure_statistics_on_plain_pictures(
    pictures: CheckedImages, tmp_path: Path
) -> None:
    plain = replace(
        Augmentation(), flip_probability=0, hsv_probability=0, multiscale_steps=3, scale=(0.5, 0.6)
    )
    settings = config(augmentation=plain, height=96, width=96)
    job = Job(settings, Machine(), pictures, tmp_path / "last.pth", tmp_path / "best.pth")

    def samples(*, closing: bool) -> set[bytes]:
        batches = job.first_batches(IMAGES, CPU, closing=closing)
        return {image.numpy().tobytes() for batch in batches for image in batch}

    whole = {
        torch.from_numpy(picture.image).permute(2, 0, 1).float().numpy().tobytes()
        for picture in (pictures.pictures(None)[number] for number in range(IMAGES))
    }
    assert samples(closing=True) == whole
    assert not samples(closing=False) & whole


@pytest.mark.parametrize("best", range(3))
def test_closing_epochs_keep_the_best_statistics(
    pictures: CheckedImages, tmp_path: Path, best: int
) -> None:
    measured: list[dict[str, Tensor]] = []
    # Statistics of the run's first samples, of the closing epochs', and averaged ones.
    aps = iter([0.2, *(0.6 if kind == best else 0.5 for kind in range(3))])

    def measure(model: nn.Module) -> Metrics:
        measured.append({name: value.clone() for name, value in model.state_dict().items()})
        return metrics(next(aps))

    diary = Diary()
    run(pictures, tmp_path, diary, epochs=2, closing_epochs=1, norm_images=4, measure=measure)

    first = "backbone.backbone.stem.conv.bn.running_var"
    mosaics, plain, averaged = measured[1:]
    assert not torch.equal(mosaics[first], plain[first])
    assert (plain[first] > 10 * averaged[first]).float().mean() > 0.5
    saved, last = (read_state_dict(tmp_path / name) for name in ("best.pth", "last.pth"))
    assert torch.equal(saved[first], measured[1 + best][first])
    assert torch.equal(last[first], averaged[first])
    assert [record.metrics and record.metrics.overall["AP"] for record in diary.epochs] == [
        0.2,
        0.6,
    ]


@pytest.mark.parametrize(
    ("aps", "best"),
    [((0.5, 0.5019, 0.5015), 0), ((0.5, 0.503, 0.5045), 1), ((0.5, 0.501, 0.503), 2)],
)
def test_other_statistics_have_to_be_clearly_better_than_the_first(
    pictures: CheckedImages, tmp_path: Path, aps: tuple[float, ...], best: int
) -> None:
    given = iter([0.2, *aps])
    diary = Diary()
    run(
        pictures,
        tmp_path,
        diary,
        epochs=2,
        closing_epochs=1,
        norm_images=4,
        measure=lambda _model: metrics(next(given)),
    )
    kept = diary.epochs[-1].metrics
    assert kept is not None
    assert kept.overall["AP"] == aps[best]


def test_a_run_of_closing_epochs_alone_tries_no_statistics_twice(
    pictures: CheckedImages, tmp_path: Path
) -> None:
    aps = iter([0.2, 0.3])

    def measure(_model: nn.Module) -> Metrics:
        return metrics(next(aps))

    run(pictures, tmp_path, Diary(), epochs=1, closing_epochs=1, norm_images=4, measure=measure)
    assert next(aps, None) is None


def test_resumed_training_remembers_the_best_epoch(pictures: CheckedImages, tmp_path: Path) -> None:
    stop = StopRequest()

    def stop_after_the_first_epoch(step: int) -> None:
        stop.number = signal.SIGINT if step == 1 else 0

    run(
        pictures,
        tmp_path,
        Diary(stop_after_the_first_epoch),
        stop=stop,
        measure=lambda _model: metrics(0.9),
    )
    best = (tmp_path / "best.pth").read_bytes()
    run(pictures, tmp_path, Diary(), resume=True, measure=lambda _model: metrics(0.3))

    assert (tmp_path / "best.pth").read_bytes() == best


class InterruptedByPowerCutError(Exception):
    """The end of a training whose machine goes down."""


def test_training_that_is_cut_off_between_row_and_snapshot_repeats_the_epoch(
    pictures: CheckedImages, tmp_path: Path
) -> None:
    class Forgetful(Diary):
        def epoch_ended(self, record: EpochEnded) -> None:
            if record.number == 1:
                raise InterruptedByPowerCutError
            super().epoch_ended(record)

    with pytest.raises(InterruptedByPowerCutError):
        run(pictures, tmp_path, Forgetful(), epochs=3)
    diary = Diary()
    assert run(pictures, tmp_path, diary, epochs=3, resume=True)
    assert [record.number for record in diary.epochs] == [1, 2]


def test_data_that_shrank_cannot_go_on(pictures: CheckedImages, tmp_path: Path) -> None:
    assert run(pictures, tmp_path, Diary(), epochs=3)
    fewer = replace(pictures, images=pictures.images[:BATCH])
    with pytest.raises(ModelExportError, match="6 steps far, which are 6 epochs of these data"):
        run(fewer, tmp_path, Diary(), epochs=3, resume=True)


def test_measurement_is_made_as_often_as_asked_and_at_the_end(
    pictures: CheckedImages, tmp_path: Path
) -> None:
    diary = Diary()

    run(pictures, tmp_path, diary, evaluate_every=2)

    assert [record.metrics is not None for record in diary.epochs] == [False, True, True]


def test_loss_without_bounds_ends_the_training(pictures: CheckedImages, tmp_path: Path) -> None:
    with pytest.raises(ModelExportError, match="no longer finite at step"):
        run(pictures, tmp_path, Diary(), epochs=20, warmup_epochs=0, rate_per_image=1e20)


def batch_of(pictures: CheckedImages) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=generator)
    boxes = torch.tensor([[[8.0, 8.0, 40.0, 40.0]]]).repeat(4, 1, 1)
    return Batch(images, Targets(boxes, torch.zeros(4, 1, dtype=torch.int64)))


class GradientRecorder(torch.optim.SGD):
    """Keeps the gradients that a step would follow."""

    gradients: list[Tensor]

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        parameters = [p for group in self.param_groups for p in group["params"]]
        self.gradients = [p.grad.clone() for p in parameters if p.grad is not None]


def test_accumulated_parts_give_the_mean_of_their_gradients(pictures: CheckedImages) -> None:
    torch.manual_seed(0)
    model, batch = build("nano", 2).train(), batch_of(pictures)
    loss = DetectionLoss(PRESETS["yolox"])
    expected = []
    for images, targets in (
        (batch.images[:2], Targets(*(values[:2] for values in batch.targets))),
        (batch.images[2:], Targets(*(values[2:] for values in batch.targets))),
    ):
        model.zero_grad()
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        loss(model(pixels), targets, 64, 64).total.backward()
        expected.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    optimizer = GradientRecorder(model.parameters())
    scaler = torch.amp.GradScaler("cpu", enabled=False)

    TrainingStep(model, loss, optimizer, scaler, torch.float32, parts=2)(batch, 1.0, closing=False)

    found = nn.utils.parameters_to_vector(optimizer.gradients)
    first, second = (nn.utils.parameters_to_vector(gradients) for gradients in expected)
    difference = torch.linalg.norm(found - (first + second) / 2)
    assert difference < 1e-5 * torch.linalg.norm(found)


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.heavy)]
)
def test_mixed_precision_learns_with_float32_weights(
    pictures: CheckedImages, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    model = build("nano", 2).train()
    optimizer = sgd(model, rate=0.01)
    scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)
    take_step = TrainingStep(model, DetectionLoss(PRESETS["yolox"]), optimizer, scaler, dtype)

    # The scale of float16 gradients is halved until none overflows; by then ten steps have passed
    # on a CPU that multiplies in it.
    totals = [take_step(batch_of(pictures), 0.01, closing=True)[0].item() for _ in range(32)]

    assert sum(totals[-4:]) / 4 < 0.9 * totals[0]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_cpu_computes_in_float32_unless_asked_otherwise() -> None:
    assert arithmetic("auto", CPU) is torch.float32
    assert arithmetic("bfloat16", CPU) is torch.bfloat16


@pytest.fixture
def state() -> TrainingState:
    torch.manual_seed(0)
    model = build("nano", 2)
    optimizer = sgd(model, rate=0.01)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return TrainingState(model, WeightAverage(model), optimizer, scaler, step=7)


def test_nothing_to_resume_is_an_error(state: TrainingState, tmp_path: Path) -> None:
    with pytest.raises(ModelExportError, match="nothing to resume"):
        state.restore(tmp_path / "last.pth")


def test_best_epoch_is_read_from_the_snapshot(state: TrainingState, tmp_path: Path) -> None:
    state.best_epoch = 5
    state.save(tmp_path / "last.pth", ABOUT)
    save_weights(state.model, tmp_path / "best.pth", ABOUT)

    assert best_epoch(tmp_path / "last.pth") == 5
    with pytest.raises(ModelExportError, match="is no training"):
        best_epoch(tmp_path / "best.pth")


def test_damaged_snapshot_is_an_error(state: TrainingState, tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    state.save(path, ABOUT)
    path.write_bytes(path.read_bytes()[:-1000])

    with pytest.raises(ModelExportError, match="no training that fits"):
        state.restore(path)


def test_snapshot_of_weights_alone_cannot_be_resumed(state: TrainingState, tmp_path: Path) -> None:
    save_weights(state.average.model, tmp_path / "best.pth", ABOUT)

    with pytest.raises(ModelExportError, match="no training that fits"):
        state.restore(tmp_path / "best.pth")


def test_scale_of_gradients_goes_on_where_it_was(state: TrainingState, tmp_path: Path) -> None:
    begun = replace(state, scaler=torch.amp.GradScaler("cpu", init_scale=8.0))
    resumed = replace(state, scaler=torch.amp.GradScaler("cpu"))

    begun.save(tmp_path / "last.pth", ABOUT)
    resumed.restore(tmp_path / "last.pth")

    assert resumed.scaler.get_scale() == 8.0


def test_snapshot_leaves_no_other_files(state: TrainingState, tmp_path: Path) -> None:
    state.save(tmp_path / "last.pth", ABOUT)

    assert [path.name for path in tmp_path.iterdir()] == ["last.pth"]


def test_snapshot_that_cannot_be_written_is_an_error(state: TrainingState, tmp_path: Path) -> None:
    with pytest.raises(ModelExportError, match="cannot write"):
        state.save(tmp_path / "missing" / "last.pth", ABOUT)


@pytest.fixture
def _own_handlers() -> Iterator[None]:
    """Handlers that raise, whichever the tests run with: shells ignore SIGINT in the background."""
    numbers = signal.SIGINT, signal.SIGTERM
    former = [signal.signal(number, signal.default_int_handler) for number in numbers]
    yield
    for number, handler in zip(numbers, former, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("_own_handlers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_is_a_request_and_the_second_acts(number: signal.Signals) -> None:
    with stop_on_signals() as stop:
        assert not stop.made
        os.kill(os.getpid(), number)
        assert stop.made
        assert stop.number == number
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_signals_are_left_alone_outside_of_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGINT)
    inside = []

    def look() -> None:
        with stop_on_signals():
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert inside == [before]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"height": 100}, "multiples of 32"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"rate_per_image": math.inf}, "rate_per_image must be a number above 0"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
        ({"average_decay": 5.0}, "average_decay must be at least 0 and below 1"),
        ({"seed": 2**63}, "below 2\\^63"),
        ({"closing_epochs": 4}, "closing_epochs"),
        ({"warmup_epochs": -1}, "warmup_epochs"),
        ({"rate_per_image": 0.0}, "rate_per_image"),
        ({"class_weight": 0.0}, "class_weight"),
        ({"center_radius": 0.0}, "center_radius"),
        ({"accumulate": 0}, "accumulate"),
        ({"height": 32, "width": 32, "batch_size": 1}, "32x32"),
        ({"height": 32, "width": 32, "accumulate": 4}, "32x32"),
        ({"batch_size": 1}, "32x32, the smallest size here"),
    ],
)
def test_meaningless_configuration_is_refused(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ModelExportError, match=named):
        config(**changes)


@pytest.mark.parametrize(
    "data",
    [
        DataSource(Path("x"), Path("y"), "trainval"),
        DataSource(
            Path("x"),
            more=(Path("z"),),
            form="voc",
            class_names=("cat",),
            share=Share(0.2, 3, held_out=False),
        ),
        DrawnBarcodes(4000),
    ],
)
def test_configuration_survives_json(data: DataSource | DrawnBarcodes) -> None:
    settings = config(weights=Path("a.pth"), data=data)

    assert TrainingConfig.from_json(settings.to_json()) == settings


def test_configuration_of_an_earlier_release_is_read() -> None:
    settings = config()
    earlier = json.loads(settings.to_json())
    del earlier["center_radius"]

    assert TrainingConfig.from_json(json.dumps(earlier)) == settings


def test_one_image_of_several_cells_has_something_to_normalise() -> None:
    for height, width, multiscale_steps in ((64, 64, 0), (32, 96, 0), (96, 96, 1)):
        augmentation = replace(augmentation_for("nano"), multiscale_steps=multiscale_steps)
        config(height=height, width=width, batch_size=1, augmentation=augmentation)


def test_other_json_is_no_configuration() -> None:
    with pytest.raises(ModelExportError, match="no configuration of a training"):
        TrainingConfig.from_json('{"variant": "huge"}')


def test_batch_that_cannot_be_shared_is_refused() -> None:
    assert config(batch_size=8, accumulate=2).share_of_batch(2) == 4
    with pytest.raises(ModelExportError, match="cannot be shared by 3 processes"):
        config(batch_size=8).share_of_batch(3)
    with pytest.raises(ModelExportError, match="2 equal parts"):
        config(batch_size=3, accumulate=2).share_of_batch(1)
