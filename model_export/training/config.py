"""The configuration of a training; without torch, so that the command line starts at once."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from model_export.data.sources import DataSource
from model_export.errors import ModelExportError
from model_export.loss.presets import CENTER_RADIUS, PresetName
from model_export.model.variants import ALL_BUT_HEAD, HeadKind, Variant
from model_export.samples.batch_plan import SIZE_STEP, smallest_training_size
from model_export.samples.settings import Augmentation
from service.core.contract import BoxCoding

# Torch takes seeds below this.
SEEDS: Final = 2**63
Precision = Literal["auto", "float32", "bfloat16", "float16"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)
LoggerName = Literal["mlflow", "wandb"]


@dataclass(frozen=True, slots=True)
class DrawnBarcodes:
    """Pictures of barcodes that are drawn when they are needed, new ones for every epoch.

    Attributes:
        pictures: The number of pictures in an epoch.
    """

    pictures: int


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Everything that the numbers of a training depend on, besides the files it reads.

    Attributes:
        variant: Which network.
        data: The data to learn from.
        validation: The data to measure on, which decides the best epoch.
        height: Usual network height in pixels, a multiple of 32.
        width: Usual network width in pixels, a multiple of 32.
        augmentation: How much samples vary.
        head: Which head.
        weights: A checkpoint to start from, or None to train from scratch.
        loss: Which preset of the loss.
        class_weight: Weight of the class loss, 1 as in the release; higher if the classes are
            harder to tell apart than to find.
        box_coding: How raw values stand for a box.
        center_radius: How far candidates lie from a ground truth's centre at most, in strides.
        epochs: Passes over the data.
        closing_epochs: How many of these, at the end, go without mosaic, MixUp and affine maps.
        warmup_epochs: How many, at the beginning, the learning rate rises for; may be a fraction.
        batch_size: Images per optimizer step, all processes together.
        accumulate: In how many parts a process computes its share of a batch, to save memory.
        rate_per_image: Peak learning rate, per image of a batch.
        momentum: The momentum of SGD, in Nesterov's form.
        weight_decay: The decay of the convolutions' weights; norms and biases do not decay.
        average_decay: The share of itself that the average of the weights keeps in a late step.
        average_ramp: Steps after which this share has reached 63 % of its value.
        norm_images: Before a measurement, the averaged model's batch norm statistics are computed
            again from this many training samples. In the closing epochs, theirs and the averaged
            statistics are tried, too. With 0, only averaged statistics are used.
        evaluate_every: Epochs between measurements; the last epoch is always measured.
        patience: Epochs without a better AP after which the run goes on with its closing epochs, or
            ends; None for no such limit.
        freeze: How many of the first stages keep the weights they start from, of the five of the
            backbone; 6 freezes the neck, too.
        balance: Weight of a class in the class loss: its number of boxes to the power of minus
            this; 0 for equal weights.
        single_class: Whether the classes of the data count as one.
        seed: The seed of the first weights and of every sample.
        fixed_size: Export a model that takes this size only; the training does not depend on it.
    """

    variant: Variant
    data: DataSource | DrawnBarcodes
    validation: DataSource
    height: int
    width: int
    augmentation: Augmentation
    head: HeadKind = "decoupled"
    weights: Path | None = None
    loss: PresetName = "yolox"
    class_weight: float = 1.0
    box_coding: BoxCoding = "yolox"
    center_radius: float = CENTER_RADIUS
    epochs: int = 300
    closing_epochs: int = 15
    warmup_epochs: float = 5
    batch_size: int = 16
    accumulate: int = 1
    rate_per_image: float = 0.01 / 64
    momentum: float = 0.9
    weight_decay: float = 5e-4
    average_decay: float = 0.9998
    average_ramp: int = 2000
    norm_images: int = 256
    evaluate_every: int = 1
    patience: int | None = None
    freeze: int = 0
    balance: float = 0.0
    single_class: bool = False
    seed: int = 0
    fixed_size: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            ModelExportError: A value has no meaning, or two contradict each other.
        """
        if self.height % SIZE_STEP or self.width % SIZE_STEP:
            raise ModelExportError(f"height and width must be multiples of {SIZE_STEP}")
        for name in (
            "height",
            "width",
            "epochs",
            "batch_size",
            "accumulate",
            "average_ramp",
            "evaluate_every",
        ):
            if getattr(self, name) < 1:
                raise ModelExportError(f"{name} must be at least 1")
        if not 0 <= self.closing_epochs <= self.epochs:
            raise ModelExportError(
                f"closing_epochs is {self.closing_epochs}, and must be within 0 and {self.epochs}, "
                "the epochs; --closing-epochs sets it"
            )
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise ModelExportError(f"warmup_epochs must be within 0 and {self.epochs}, the epochs")
        self._check_numbers()
        self._check_norms()
        if self.patience is not None and self.patience < 1:
            raise ModelExportError("patience must be at least 1")
        if self.freeze and self.weights is None:
            raise ModelExportError("freeze needs weights: parts that never learn would stay random")
        if not 0 <= self.freeze <= ALL_BUT_HEAD:
            raise ModelExportError(f"freeze must be within 0 and {ALL_BUT_HEAD}")

    @property
    def first_closing(self) -> int:
        """The first closing epoch, from 0."""
        return self.epochs - self.closing_epochs

    def _check_numbers(self) -> None:
        for name in ("rate_per_image", "class_weight", "center_radius"):
            if not 0 < getattr(self, name) < math.inf:
                raise ModelExportError(f"{name} must be a number above 0")
        for name in ("weight_decay", "balance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ModelExportError(f"{name} must be a number, and at least 0")
        for name in ("momentum", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ModelExportError(f"{name} must be at least 0 and below 1")
        if not 0 <= self.seed < SEEDS:
            raise ModelExportError("seed must be at least 0 and below 2^63")

    def _check_norms(self) -> None:
        changes = self.augmentation.size_changes
        height, width = smallest_training_size(self.height, self.width, changes=changes)
        cells = (height // SIZE_STEP) * (width // SIZE_STEP)
        if self.batch_size < self.accumulate:
            raise ModelExportError(
                f"a batch of {self.batch_size} cannot be computed in {self.accumulate} parts"
            )
        if self.batch_size * cells <= self.accumulate:
            raise ModelExportError(
                f"batch norms need more than one value: {height}x{width}, the smallest size here, "
                "has one cell of the largest stride, and a part of a batch has one image"
            )

    def share_of_batch(self, processes: int) -> int:
        """The images of a step that each of several processes takes.

        Raises:
            ModelExportError: The batch does not divide evenly, or a share not into its parts.
        """
        share, rest = divmod(self.batch_size, processes)
        if rest or share % self.accumulate:
            shared = f"shared by {processes} processes" if processes > 1 else "computed"
            raise ModelExportError(
                f"a batch of {self.batch_size} cannot be {shared} in {self.accumulate} equal parts"
                + (" each" if processes > 1 else "")
            )
        return share

    def to_json(self) -> str:
        """This configuration as a JSON object."""
        return _ADAPTER.dump_json(self, indent=2).decode()

    @classmethod
    def from_json(cls, text: str) -> "TrainingConfig":
        """Read what `to_json` wrote.

        Raises:
            ModelExportError: The text is something else.
        """
        try:
            return _ADAPTER.validate_json(text)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, each['loc'])) or 'the text'}: {each['msg']}"
                for each in error.errors()
            )
            raise ModelExportError(f"no configuration of a training: {faults}") from error


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine of a training; another machine gives the same numbers up to rounding.

    Attributes:
        device: `cpu`, `cuda`, or `auto`, which takes a GPU if there is one.
        workers: The number of processes that make samples, per training process.
        cache: A folder for decoded images, or None to decode them each time.
        fit_batch: Whether to take the largest batch that fits into memory, instead of the
            configuration's.
        log_to: The services that the run is logged to, besides TensorBoard.
        precision: The network's arithmetic; `auto` is float32 on a CPU, mixed on a GPU.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int = 1
    cache: Path | None = None
    precision: Precision = "auto"
    fit_batch: bool = False
    log_to: tuple[LoggerName, ...] = ()


_ADAPTER: Final = TypeAdapter(TrainingConfig)
