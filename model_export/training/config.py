"""What a training is asked to do; no torch, so that the command line need not wait for it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from model_export.errors import ModelExportError
from model_export.loss.presets import CENTER_RADIUS, PresetName
from model_export.model.variants import HeadKind, Variant
from model_export.samples.recipe import SIZE_STEP, Augmentation, least_training_size
from service.core.contract import BoxCoding

# As many as torch takes.
SEEDS: Final = 2**63
Precision = Literal["auto", "float32", "bfloat16", "float16"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)


@dataclass(frozen=True, slots=True)
class DataSource:
    """Where annotated images are.

    Attributes:
        path: A COCO json, or a VOC folder.
        images: The folder of a COCO json's images (default: the one that it is in).
        split: The list of a VOC folder.
    """

    path: Path
    images: Path | None = None
    split: str = "train"


@dataclass(frozen=True, slots=True)
class DrawnBarcodes:
    """Pictures of barcodes that are drawn when they are needed, other ones in every epoch.

    Attributes:
        pictures: How many make an epoch.
    """

    pictures: int


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Everything that the numbers of a training depend on, besides the files it reads.

    Attributes:
        variant: Which network.
        head: Its head.
        data: What to learn from.
        validation: What to measure on, to tell the best epoch.
        weights: A checkpoint to start from, or None to start from nothing.
        height: Usual network height in pixels, a multiple of 32.
        width: Likewise.
        loss: What the parts of the loss aim at.
        class_weight: How much the class loss counts, 1 as in the release: more where the classes
            are harder to tell apart than to find.
        box_coding: How raw values stand for a box.
        center_radius: Reach of the candidates of a ground truth, in strides.
        epochs: Passes over the data.
        closing_epochs: How many of these, at the end, go without mosaic, MixUp and affine.
        warmup_epochs: How many, at the beginning, the learning rate rises for; a share is fine.
        batch_size: Images of an optimizer step, all processes together.
        accumulate: In how many parts a process computes its share of a batch, to save memory.
        rate_per_image: Highest learning rate, for each image of a batch.
        momentum: Nesterov's.
        weight_decay: Of the kernels.
        average_decay: Share of itself that the average of the weights keeps, late in the run.
        average_ramp: Steps after which that share is at 63 % of this; less of it before.
        norm_images: Training samples on which the batch norms' statistics of the average are
            measured anew before it is; 0 leaves them as they were averaged.
        evaluate_every: Epochs from one measurement to the next; the last is always measured.
        augmentation: How much samples vary.
        seed: Of the weights and of every sample.
        fixed_size: Export a model of this size only; no number of the training depends on it.
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
    seed: int = 0
    fixed_size: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be done.

        Raises:
            ModelExportError: A number has no meaning, or two do not go together.
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
            raise ModelExportError(f"closing_epochs must be within 0 and {self.epochs}, the epochs")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise ModelExportError(f"warmup_epochs must be within 0 and {self.epochs}, the epochs")
        self._check_numbers()
        self._check_norms()

    def _check_numbers(self) -> None:
        for name in ("rate_per_image", "class_weight", "center_radius"):
            if not 0 < getattr(self, name) < math.inf:
                raise ModelExportError(f"{name} must be a number above 0")
        if not 0 <= self.weight_decay < math.inf:
            raise ModelExportError("weight_decay must be a number, and at least 0")
        for name in ("momentum", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ModelExportError(f"{name} must be at least 0 and below 1")
        if not 0 <= self.seed < SEEDS:
            raise ModelExportError("seed must be at least 0 and below 2^63")

    def _check_norms(self) -> None:
        steps = self.augmentation.multiscale_steps
        height, width = least_training_size(self.height, self.width, steps=steps)
        cells = (height // SIZE_STEP) * (width // SIZE_STEP)
        if self.batch_size * cells <= self.accumulate:
            raise ModelExportError(
                f"batch norms need more than one value: {height}x{width}, the smallest size here, "
                "has one cell of the largest stride, and a part of a batch has one image"
            )

    def share_of_batch(self, processes: int) -> int:
        """Images of a step for each of several processes.

        Raises:
            ModelExportError: The batch cannot be shared equally, or not split into its parts.
        """
        share, rest = divmod(self.batch_size, processes)
        if rest or share % self.accumulate:
            raise ModelExportError(
                f"a batch of {self.batch_size} cannot be shared by {processes} processes in "
                f"{self.accumulate} equal parts each"
            )
        return share

    def to_json(self) -> str:
        """This configuration as a JSON object."""
        return _ADAPTER.dump_json(self, indent=2).decode()

    @classmethod
    def from_json(cls, text: str) -> "TrainingConfig":
        """Read what `to_json` wrote.

        Raises:
            ModelExportError: It is something else.
        """
        try:
            return _ADAPTER.validate_json(text)
        except ValidationError as error:
            raise ModelExportError(f"no configuration of a training: {error}") from error


@dataclass(frozen=True, slots=True)
class Machine:
    """What a training runs on; another machine gives the same numbers up to rounding.

    Attributes:
        device: `cpu`, `cuda`, or `auto` for a GPU where there is one.
        workers: Processes that make samples, for each training process.
        cache: A folder for decoded images, or None to decode them each time.
        precision: Of the network's arithmetic; `auto` is float32 on a CPU, mixed on a GPU.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int = 1
    cache: Path | None = None
    precision: Precision = "auto"


_ADAPTER: Final = TypeAdapter(TrainingConfig)
