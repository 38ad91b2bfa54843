"""AP over the closing epochs of a training, by the kind of batch norm statistics of its weights.

    python benchmarks/closing_statistics.py --data BCCD/train.json --val BCCD/val.json
        --test BCCD/test.json --images BCCD/JPEGImages --size 320x416
        [--epochs 80] [--closing-epochs 12] [--seed 1] [--weights yolox_nano.npz]
        [--loss article] [--box-coding anchor_point]

After each tenth epoch, and after the first, second, third, fifth, eighth and last closing one, the
averaged weights are measured with three kinds of statistics:

- averaged: the average of the training's own running statistics
- training: measured on the run's first samples, mosaics included
- plain: measured on the first samples of the closing epochs

Each measurement is printed as a line of JSON: epoch, whether it is a closing one, kind, AP and AP50
on val and on test. Run several seeds side by side: training on small pictures leaves most of a GPU
idle.
"""

import argparse
import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from model_export.commands.arguments.argument_types import natural, positive, training_size
from model_export.data.checked_images import CheckedImages, check_images
from model_export.data.reading import read_source
from model_export.data.sources import DataSource
from model_export.loss.presets import PRESET_NAMES
from model_export.measure.coco import Metrics
from model_export.measure.validation import Validation
from model_export.measure.validation_data import read_validation_set
from model_export.model.batch_norm_statistics import (
    STATISTICS_IMAGES,
    refresh_statistics,
    restore_statistics,
)
from model_export.model.pretrained import initialise
from model_export.model.variants import VARIANTS
from model_export.model.yolox import YOLOX, build
from model_export.report.events import Watchers
from model_export.samples.settings import augmentation_for
from model_export.training.config import Machine, TrainingConfig
from model_export.training.job import Job
from model_export.training.loop import train
from model_export.training.parallel import team
from model_export.training.signals import StopRequest

# Images that statistics are measured on, as `--norm-images` has it.
IMAGES = 256
EVERY = 10
SOON_AFTER_CLOSING = (0, 1, 2, 3, 5, 8)


@dataclass
class Measuring:
    """Measures the averaged weights after some epochs; stands in for a run's own measurement."""

    job: Job
    sets: dict[str, Validation]
    device: torch.device
    epoch: int = 0

    def __call__(self, average: nn.Module) -> Metrics:
        """Measure, if the epoch that has just ended is one of those to measure."""
        self.epoch += 1
        if self._is_wanted():
            for kind, model in self._kinds(average):
                print(json.dumps(self._line(kind, model)), flush=True)
        # The run itself keeps nothing.
        return Metrics({"AP": 0.0}, {})

    def _is_wanted(self) -> bool:
        config = self.job.config
        closing = self.epoch - config.epochs + config.closing_epochs
        last = self.epoch == config.epochs
        return last or closing in SOON_AFTER_CLOSING or self.epoch % EVERY == 0

    def _kinds(self, average: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        yield "averaged", average
        # As if all epochs were closing ones, so that a run without any has plain samples, too.
        plain = replace(self.job.config, closing_epochs=self.job.config.epochs)
        for kind, job in (("training", self.job), ("plain", replace(self.job, config=plain))):
            model = copy.deepcopy(average)
            refresh_statistics(model, job.first_batches(IMAGES, self.device))
            yield kind, model

    def _line(self, kind: str, model: nn.Module) -> dict[str, object]:
        config = self.job.config
        line: dict[str, object] = {
            "seed": config.seed,
            "epoch": self.epoch,
            "closing": self.epoch > config.epochs - config.closing_epochs,
            "statistics": kind,
        }
        for name, validation in self.sets.items():
            overall = validation.measure(model).overall
            line |= {f"{name} AP": overall["AP"], f"{name} AP50": overall["AP50"]}
        return line


def main() -> None:
    """Train, and print the measurements."""
    arguments = _arguments()
    with team(arguments.device) as members, TemporaryDirectory() as scratch:
        config = _config(arguments)
        data = check_images(read_source(config.data))
        folder = Path(scratch)
        machine = Machine(arguments.device, arguments.workers, folder / "cache", "float32")
        (folder / "cache").mkdir()
        job = Job(config, machine, data, folder / "last.pth", folder / "best.pth")
        sources = {"val": config.validation, "test": _source(arguments, arguments.test)}
        sets = {
            name: Validation(read_validation_set(source, data.class_names).coco, job.contract())
            for name, source in sources.items()
        }
        model = _first_model(job, data, members.device)
        measuring = Measuring(job, sets, members.device)
        train(job, model, measuring, Watchers(()), members, StopRequest())


def _first_model(job: Job, data: CheckedImages, device: torch.device) -> YOLOX:
    config = job.config
    torch.manual_seed(config.seed)
    model = build(config.variant, len(data.class_names)).to(device)
    if config.weights and initialise(model, config.weights).folded:
        restore_statistics(model, job.first_batches(STATISTICS_IMAGES, device))
    return model


def _config(arguments: argparse.Namespace) -> TrainingConfig:
    """The settings for a few hundred images of model_export/README.md."""
    height, width = arguments.size
    augmentation = replace(
        augmentation_for(arguments.variant), rotation_degrees=0.0, multiscale_steps=2
    )
    return TrainingConfig(
        variant=arguments.variant,
        data=_source(arguments, arguments.data),
        validation=_source(arguments, arguments.val),
        height=height,
        width=width,
        augmentation=augmentation,
        weights=arguments.weights,
        loss=arguments.loss,
        box_coding=arguments.box_coding,
        epochs=arguments.epochs,
        closing_epochs=arguments.closing_epochs,
        warmup_epochs=min(5, arguments.epochs / 20),
        batch_size=8,
        rate_per_image=0.000625,
        average_decay=0.995,
        average_ramp=200,
        norm_images=0,
        seed=arguments.seed,
    )


def _source(arguments: argparse.Namespace, path: Path) -> DataSource:
    return DataSource(path, images=arguments.images)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("data", "val", "test"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="a COCO json")
    parser.add_argument("--images", type=Path, help="the folder of the images")
    parser.add_argument("--variant", choices=VARIANTS, default="nano")
    parser.add_argument("--weights", type=Path, help="start from these")
    parser.add_argument("--size", type=training_size, default="416", metavar="N|HxW")
    parser.add_argument("--loss", choices=PRESET_NAMES, default="yolox")
    parser.add_argument("--box-coding", choices=("yolox", "anchor_point"), default="yolox")
    parser.add_argument("--epochs", type=positive, default=80)
    parser.add_argument("--closing-epochs", type=natural, default=12)
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--workers", type=natural, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
