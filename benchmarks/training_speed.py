"""The network's share of a training step: images/s of whole steps over those of the network alone.

    python benchmarks/training_speed.py --data DATASET [--split train] [--cache DIR]

A whole step takes its samples from the workers, assigns them, computes the loss, steps the
optimizer and updates the weight average. The other step is the forward and backward pass of the
same network on ready tensors. The two alternate in short blocks, so that both run under the same
conditions.

With --costs, the parts of a step and of a validation are measured instead, in CPU time on one
thread, which other programs of the machine disturb little.
"""

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from model_export.commands.arguments.argument_types import natural, positive, training_size
from model_export.data.annotations import AnnotatedImage
from model_export.data.checked_images import check_images
from model_export.data.image_cache import ImageCache
from model_export.data.reading import read_annotations
from model_export.errors import ModelExportError
from model_export.loss.loss import PRESETS, DetectionLoss
from model_export.measure.validation import Validation
from model_export.measure.validation_data import coco_set_of_images
from model_export.model.variants import VARIANTS
from model_export.model.yolox import YOLOX, build
from model_export.samples.batch_plan import BatchPlan
from model_export.samples.loader import Batch, TrainingSamples, training_batches
from model_export.samples.settings import augmentation_for
from model_export.training.step import TrainingStep, WeightAverage, sgd
from service.core.contract import InputSpec, ModelContract

LIMIT = 0.9
BLOCK = 5


def main() -> None:
    """Measure, and print the ratio with its limit."""
    try:
        arguments = _arguments()
        (_costs if arguments.costs else _measure)(arguments)
    except ModelExportError as error:
        raise SystemExit(f"error: {error}") from error


def _measure(arguments: argparse.Namespace) -> None:
    data = check_images(read_annotations(arguments.data, arguments.images, split=arguments.split))
    torch.manual_seed(0)
    model = build(arguments.variant, len(data.class_names)).train()
    model.to(memory_format=torch.channels_last)
    settings = replace(augmentation_for(arguments.variant), multiscale_steps=0)
    pictures = data.pictures(ImageCache(arguments.cache) if arguments.cache else None)
    (height, width), batch_size = arguments.size, arguments.batch_size
    plan = BatchPlan(
        len(pictures), batch_size, epochs=10_000, closing_epochs=0, height=height, width=width
    )
    samples = TrainingSamples(pictures, settings, seed=0)
    batches = training_batches(samples, plan, workers=arguments.workers, in_step=True)
    whole, alone = (
        whole_step(model, batches, arguments.loss),
        network_step(model, batch_size, height, width),
    )
    ratios, speeds = [], []
    for block in range(arguments.blocks + 1):
        without, with_all = (batch_size * BLOCK / seconds(step) for step in (alone, whole))
        if block:  # the first one warms up
            ratios.append(with_all / without)
            speeds.append((with_all, without))
            print(f"block {block}: {with_all:.1f} of {without:.1f} images/s: {ratios[-1]:.3f}")
    ratio = statistics.median(ratios)
    verdict = "within" if ratio >= LIMIT else "MISSES"
    print(f"whole step / network alone: {ratio:.3f} ({verdict} the limit of {LIMIT})")


def _costs(arguments: argparse.Namespace) -> None:
    """Print the CPU time of each part, per image, and its share of the network's own."""
    torch.set_num_threads(1)
    data = check_images(read_annotations(arguments.data, arguments.images, split=arguments.split))
    model = build(arguments.variant, len(data.class_names)).train()
    model.to(memory_format=torch.channels_last)
    (height, width), batch_size = arguments.size, arguments.batch_size
    settings = replace(augmentation_for(arguments.variant), multiscale_steps=0)
    cache = ImageCache(arguments.cache) if arguments.cache else None
    samples = TrainingSamples(data.pictures(cache), settings, seed=0)
    plan = BatchPlan(len(data), batch_size, 10_000, 0, height, width)
    batches = training_batches(samples, plan)
    batch = next(batches)
    optimizer, average = sgd(model, rate=1e-4, fused=True), WeightAverage(model)
    raw = model(batch.images.float()).detach()
    loss = DetectionLoss(PRESETS[arguments.loss])
    model.zero_grad()
    model(batch.images.float()).mean().backward()  # gradients for the optimizer, which is first
    parts: dict[str, Callable[[], object]] = {
        "optimizer": optimizer.step,
        "network, forward and backward": network_step(model, batch_size, height, width),
        "samples (in the workers)": lambda: next(batches),
        "assignment and loss": lambda: loss(raw, batch.targets, height, width),
        "average of the weights": average.update,
    }
    rows = {name: cpu_seconds(part, arguments.blocks) / batch_size for name, part in parts.items()}
    model.eval()
    images = data.images[: 8 * batch_size]
    for size in (1, batch_size):
        rows[f"validation, in batches of {size}"] = validation_seconds(
            model, data.class_names, images, (height, width), size
        )
    whole = rows["network, forward and backward"]
    for name, seconds_ in rows.items():
        print(f"{name:<34} {seconds_ * 1000:8.2f} ms per image  {seconds_ / whole:7.1%}")


def validation_seconds(
    model: YOLOX,
    class_names: Sequence[str],
    images: Sequence[AnnotatedImage],
    size: tuple[int, int],
    batch_size: int,
) -> float:
    """CPU time per image of decoding, network, suppression and metrics."""
    spec = InputSpec("images", *size, dynamic_size=True)
    contract = ModelContract("x", "1", spec, tuple(class_names))
    coco = coco_set_of_images(images, class_names)
    started = time.process_time()
    Validation(coco, contract, batch_size).measure(model)
    return (time.process_time() - started) / len(images)


def cpu_seconds(part: Callable[[], object], times: int) -> float:
    """Median CPU time of a call, of all threads of this process."""
    part()
    durations = []
    for _ in itertools.repeat(None, times):
        started = time.process_time()
        part()
        durations.append(time.process_time() - started)
    return statistics.median(durations)


def whole_step(model: YOLOX, batches: Iterator[Batch], preset: str) -> Callable[[], None]:
    """A call that does one whole training step."""
    optimizer = sgd(model, rate=1e-4, fused=True)
    average = WeightAverage(model)
    loss = DetectionLoss(PRESETS[preset])
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    take_step = TrainingStep(model, loss, optimizer, scaler, torch.float32)

    def step() -> None:
        take_step(next(batches), 1e-4, closing=False)
        average.update()

    return step


def network_step(model: YOLOX, batch_size: int, height: int, width: int) -> Callable[[], None]:
    """A call that does forward and backward on the same tensor, without assignment or loss."""
    images = torch.randint(0, 256, (batch_size, 3, height, width), dtype=torch.uint8).float()
    images = images.to(memory_format=torch.channels_last)

    def step() -> None:
        model(images).mean().backward()
        model.zero_grad()

    return step


def seconds(step: Callable[[], None]) -> float:
    """Duration of a block of steps, in seconds."""
    started = time.perf_counter()
    for _ in itertools.repeat(None, BLOCK):
        step()
    return time.perf_counter() - started


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a COCO json, or a VOC folder")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--cache", type=Path, help="keep decoded images there")
    parser.add_argument("--variant", choices=VARIANTS, default="nano")
    parser.add_argument("--size", type=training_size, default="416", metavar="N|HxW")
    parser.add_argument("--batch-size", type=positive, default=8)
    parser.add_argument("--workers", type=natural, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--loss", choices=tuple(PRESETS), default="yolox")
    parser.add_argument("--blocks", type=positive, default=10)
    parser.add_argument("--costs", action="store_true", help="measure the parts instead")
    return parser.parse_args()


if __name__ == "__main__":
    main()
