"""A whole run: from annotated images to an exported model."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from model_export.checksum import short_sha256
from model_export.data.checked_images import CheckedImages
from model_export.data.identity import Identity, identities_text
from model_export.data.image_cache import ImageCache
from model_export.data.pictures import TrainingData
from model_export.data.sources import SINGLE_CLASS
from model_export.errors import ModelExportError
from model_export.exporting.export import export
from model_export.inspection.inspection import inspect
from model_export.inspection.statistics import NetworkView
from model_export.inspection.tables import report
from model_export.loss.boxes import STRIDES
from model_export.measure.coco import Metrics
from model_export.measure.speed import model_speed
from model_export.measure.thresholds import best_thresholds
from model_export.measure.validation import Validation
from model_export.measure.validation_data import ValidationData, read_validation_set
from model_export.model.about import About
from model_export.model.batch_norm_statistics import STATISTICS_IMAGES, restore_statistics
from model_export.model.checkpoint import load_weights
from model_export.model.freezing import freeze
from model_export.model.head import centre_first_boxes
from model_export.model.pretrained import initialise
from model_export.model.yolox import YOLOX, build
from model_export.report.assignment import assignment_sheet, samples_sheet
from model_export.report.events import EpochEnded, Watcher, Watchers
from model_export.report.label_plots import plot_labels
from model_export.report.loggers.services import ServiceLogger, services
from model_export.report.loggers.tensorboard import TensorBoardWriter
from model_export.report.metrics_csv import MetricsCsv
from model_export.report.progress import ProgressBar
from model_export.report.run_folder import Best, RunFolder, writing_to
from model_export.samples.loader import training_batches
from model_export.training.config import DrawnBarcodes, Machine, TrainingConfig
from model_export.training.fit_batch import with_fitting_batch
from model_export.training.job import Job
from model_export.training.loop import train
from model_export.training.parallel import Team
from model_export.training.resuming import changes, identities, refuse_other_data
from model_export.training.signals import StopRequest
from model_export.training.state import best_epoch, save_weights, steps_so_far
from service.core.contract import Provenance


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A training with all that surrounds it: data, validation, reports, files and export.

    Attributes:
        config: The configuration.
        machine: The machine that it runs on.
        read_data: Reads the data of `config`. Passed in, because some data need packages that
            other trainings do without.
        folder: Where the files go.
        resume: Whether the folder has the beginning of the run.
        team: The processes that take part; only the leader prints and writes.
        console: Where to print.
    """

    config: TrainingConfig
    machine: Machine
    read_data: Callable[[], TrainingData]
    folder: RunFolder
    resume: bool
    team: Team
    console: Console

    def run(self, stop: StopRequest) -> bool:
        """Train; at the end or when stopped, write metrics, plots and the best model so far.

        Returns:
            Whether the training came to its end, rather than being stopped.

        Raises:
            ModelExportError: The configuration, the data or the files cannot be used.
        """
        config, folder = self.config, self.folder
        if self.team.leads and not self.resume:
            folder.check_free()
        self._check_machine()
        data = self.read_data()
        self._print(*data.report())
        measured = read_validation_set(config.validation, data.class_names)
        if config.single_class:
            data, measured = _as_one_class(data), measured.as_one_class(SINGLE_CLASS)
        self._inspect(data, measured)
        known = identities(data, measured.checked)
        if self.resume:
            refuse_other_data(folder, known)
        self._check_cache(data)
        fitted = replace(self, config=self._fitted(data))
        return fitted.train_on(data, measured, known, stop)

    def train_on(
        self,
        data: TrainingData,
        measured: ValidationData,
        known: dict[str, Identity],
        stop: StopRequest,
    ) -> bool:
        """Train on data that were read, and finish."""
        config, folder = self.config, self.folder
        job = Job(config, self.machine, data, folder.last, folder.best, self.resume)
        validation = Validation(measured.coco, job.contract())
        if self.resume:
            job.plan(self.team, start=steps_so_far(folder.last))  # refuses fewer epochs
        model = self._first_model(job)
        self._write_config(known)
        metrics_csv = MetricsCsv(folder.metrics_csv, data.class_names)
        watcher = self._watcher(metrics_csv, data.class_names)
        try:
            complete = train(job, model, validation.measure, watcher, self.team, stop)
        finally:
            watcher.ended()
        if self.team.leads:
            self._finish(metrics_csv.epochs, validation, measured, job)
        return complete

    def _write_config(self, known: dict[str, Identity]) -> None:
        """Make the folder of a new run; tell how the configuration of an old one changed."""
        config, folder = self.config, self.folder
        if not self.team.leads:
            return
        if not self.resume:
            folder.create(config.to_json(), identities_text(known))
            return
        before = TrainingConfig.from_json(folder.read_config())
        self._print(*changes(before, config))
        folder.write_config(config.to_json())

    def _inspect(self, data: TrainingData, measured: ValidationData) -> None:
        """Print what is in the data; refuse data that nothing can be learnt from."""
        self._print(*(f"validation: {line}" for line in measured.checked.report()))
        if not isinstance(data, CheckedImages):
            return
        min_side = self.config.augmentation.min_side
        view = NetworkView(self.config.height, self.config.width, min_side)
        inspection = inspect(data, measured.checked, view)
        inspection.refuse_no_targets()
        self._print(*report(inspection))

    def _check_machine(self) -> None:
        """Refuse now what would fail in the first step, after the folder has been made."""
        services(self.machine.log_to, self.folder.path)  # their packages may be missing
        if not self.machine.fit_batch:
            self.config.share_of_batch(self.team.processes)
        if self.machine.cache:
            ImageCache(self.machine.cache).prepare()

    def _check_cache(self, data: TrainingData) -> None:
        if self.machine.cache and isinstance(data, CheckedImages):
            ImageCache(self.machine.cache).refuse_too_large(data.images)

    def _fitted(self, data: TrainingData) -> TrainingConfig:
        """The configuration, with the batch that fits if that is asked for."""
        if self.resume or not self.machine.fit_batch:
            return self.config
        config, line = with_fitting_batch(self.config, data, self.team, self.machine.precision)
        self._print(line)
        return config

    def _print(self, *lines: str) -> None:
        for line in lines if self.team.leads else ():
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _watcher(self, metrics_csv: MetricsCsv, class_names: Sequence[str]) -> Watcher:
        if not self.team.leads:
            return Watchers(())
        tensorboard = TensorBoardWriter(self.folder.tensorboard, class_names)
        chosen = services(self.machine.log_to, self.folder.path)
        loggers = [ServiceLogger(each, self.config.to_json()) for each in chosen]
        return Watchers((ProgressBar(self.console), tensorboard, metrics_csv, *loggers))

    def _first_model(self, job: Job) -> YOLOX:
        """The model with its first weights, on the team's device."""
        config = self.config
        torch.manual_seed(config.seed)
        model = build(config.variant, len(job.data.class_names), config.head)
        if config.box_coding == "anchor_point":
            centre_first_boxes(model.head, STRIDES)
        model.to(self.team.device)
        if config.weights and not self.resume:
            loaded = initialise(model, config.weights)
            self._print(loaded.line())
            if loaded.folded:
                restore_statistics(model, job.first_batches(STATISTICS_IMAGES, self.team.device))
                self._print(
                    f"measured the statistics of its batch norms on {STATISTICS_IMAGES} images"
                )
        freeze(model, config.freeze)
        return model

    def _finish(
        self,
        epochs: Sequence[EpochEnded],
        validation: Validation,
        measured: ValidationData,
        job: Job,
    ) -> None:
        """Measure the best weights so far as they are in the file, and export them."""
        folder, config = self.folder, self.config
        if not folder.best.is_file():
            folder.finish(epochs, None, config.first_closing)
            return
        model = build(config.variant, validation.contract.num_classes, config.head).eval()
        load_weights(model, folder.best)
        metrics = validation.measure(model.to(self.team.device))
        names = validation.contract.class_names
        thresholds = best_thresholds(model, validation.contract, measured.checked.images)
        best = Best(best_epoch(folder.last), metrics, thresholds, names, _sheets(job, model))
        self._plot_labels(job.data, measured)
        folder.finish(epochs, best, config.first_closing)
        known = replace(
            validation.contract,
            recommended=thresholds.recommended(),
            provenance=self._provenance(metrics),
        )
        about = About(config.variant, config.head, known, metrics.overall)
        save_weights(model, folder.best, about)
        export(model, replace(known, version=short_sha256(folder.best)), folder.model)
        speed = model_speed(folder.model).line
        folder.show(best, speed)
        self._print(f"speed of the exported model: {speed}")
        self._print(f"best epoch {best.epoch + 1}: {metrics.summary()}")

    def _plot_labels(self, data: TrainingData, measured: ValidationData) -> None:
        if not isinstance(data, CheckedImages):
            return
        size = self.config.height, self.config.width
        val = measured.checked.images
        with writing_to(self.folder.labels):
            plot_labels(data.images, val, data.class_names, size, self.folder.labels)

    def _provenance(self, metrics: Metrics) -> Provenance:
        source = self.config.data
        return Provenance(
            source="trained with yolox-serve",
            dataset="barcodes" if isinstance(source, DrawnBarcodes) else source.name,
            metrics=f"{metrics.summary()} on {self.config.validation.name}",
        )


def _as_one_class(data: TrainingData) -> TrainingData:
    if not isinstance(data, CheckedImages):
        raise ModelExportError("--single-class needs data of files, not drawn ones")
    return data.as_one_class(SINGLE_CLASS)


def _sheets(job: Job, model: YOLOX) -> dict[str, NDArray[np.uint8]]:
    """Pictures of the first training batch, for the report."""
    config, names = job.config, job.data.class_names
    plan = job.plan(Team(torch.device("cpu")))
    with contextlib.closing(training_batches(job.samples(), plan)) as batches:
        batch = next(batches)
    assigned = assignment_sheet(model, batch, names, config.box_coding, config.center_radius)
    return {
        "The first training batch": samples_sheet(batch, names),
        "The cells that SimOTA assigns to these objects, by the best weights": assigned,
    }
