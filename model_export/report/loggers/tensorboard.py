"""TensorBoard's event files of a training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from model_export.report.events import EpochEnded, RunStarted, StepsTaken
from model_export.report.loggers.scalars import epoch_scalars, step_scalars
from model_export.report.sheets import sheet
from model_export.samples.geometry import Picture
from model_export.samples.targets import NO_OBJECT, Targets

# Every tenth epoch shows nine samples, no side longer than 320 pixels: about a megabyte.
EPOCHS_BETWEEN_PICTURES: Final = 10
COLUMNS: Final = 3
MAX_PICTURES: Final = 9
MAX_SIDE: Final = 320


class TensorBoardWriter:
    """A watcher that writes TensorBoard's event files.

    Everything is logged by optimizer step, even what is measured once an epoch: TensorBoard goes by
    the step alone when it hides what a resumed run repeats.

    Args:
        folder: The folder of the event files; a resumed run adds one to those of the earlier runs.
        class_names: Class id to name.
    """

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self._folder = folder
        self._class_names = class_names
        self._epoch_steps = 1
        self._writer: SummaryWriter | None = None

    def started(self, run: RunStarted) -> None:
        """Open an event file."""
        self._epoch_steps = run.epoch_steps
        purge_step = run.first_step or None
        self._writer = SummaryWriter(str(self._folder), purge_step=purge_step)

    def sampled(self, step: int, images: Tensor, targets: Targets) -> None:
        """Show samples of some epochs, with their boxes."""
        epoch = step // self._epoch_steps
        if self._writer is None or epoch % EPOCHS_BETWEEN_PICTURES:
            return
        count = min(len(images), MAX_PICTURES)
        pictures = [_picture(images[i], targets, i) for i in range(count)]
        drawn = sheet(pictures, self._class_names, COLUMNS)
        self._writer.add_image("samples", drawn[:, :, ::-1], step, dataformats="HWC")

    def stepped(self, steps: StepsTaken) -> None:
        """Write the losses, the learning rate and the speed."""
        self._write(step_scalars(steps), steps.step)

    def epoch_ended(self, epoch: EpochEnded) -> None:
        """Write the metrics, and flush the file."""
        self._write(epoch_scalars(epoch), (epoch.number + 1) * self._epoch_steps - 1)
        if self._writer:
            self._writer.flush()

    def ended(self) -> None:
        """Close the event file."""
        if self._writer:
            self._writer.close()
            self._writer = None

    def _write(self, values: Mapping[str, float], step: int) -> None:
        if self._writer is None:
            return
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)


def _picture(image: Tensor, targets: Targets, index: int) -> Picture:
    """One sample of a batch, scaled down; `image` is (3, H, W) uint8 BGR."""
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    ratio = min(1.0, MAX_SIDE / max(pixels.shape[:2]))
    real = targets.class_ids[index] != NO_OBJECT
    boxes = targets.boxes_xyxy[index][real].numpy() * np.float32(ratio)
    return Picture(_shrunk(pixels, ratio), boxes, targets.class_ids[index][real].numpy())


def _shrunk(pixels: NDArray[np.uint8], ratio: float) -> NDArray[np.uint8]:
    if ratio == 1:
        return pixels
    resized = cv2.resize(pixels, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
    return np.asarray(resized, dtype=np.uint8)
