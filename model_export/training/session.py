"""A whole run: from annotated images to an exported model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from rich.console import Console

from model_export.checksum import short_sha256
from model_export.data.image_files import ImageCache
from model_export.exporting.export import export
from model_export.measure.coco import Metrics
from model_export.model.checkpoint import load_weights
from model_export.model.yolox import YOLOX, build
from model_export.report.events import EpochRecord, Watcher, Watchers
from model_export.report.progress import ProgressBar
from model_export.report.run_folder import Best, Ledger, RunFolder
from model_export.report.tensorboard import Board
from model_export.training.config import DrawnBarcodes, Machine, TrainingConfig
from model_export.training.parallel import Team
from model_export.training.pretrained import initialise
from model_export.training.snapshot import best_epoch
from model_export.training.sources import read_source
from model_export.training.statistics import STATISTICS_IMAGES, restore_statistics
from model_export.training.stop import StopRequest
from model_export.training.trainer import Job, sample_batches, train
from model_export.training.validation import Validation, read_validation_set
from service.core.contract import InputSpec, ModelContract, Provenance


@dataclass(frozen=True, slots=True)
class Session:
    """What is to be done, and by whom.

    Attributes:
        config: What to train.
        machine: What it runs on.
        folder: Where the files go.
        resume: Whether the folder has the beginning of the run.
        team: The processes that take part, of which the leader speaks and writes.
        console: Where to speak.
    """

    config: TrainingConfig
    machine: Machine
    folder: RunFolder
    resume: bool
    team: Team
    console: Console

    def run(self, stop: StopRequest) -> bool:
        """Train; at the end, write the metrics, the plots and the exported model.

        Returns:
            Whether the training came to its end, rather than being asked to stop.

        Raises:
            ModelExportError: Something is wrong with the configuration, the data or the files.
        """
        config, folder = self.config, self.folder
        if self.team.leads and not self.resume:
            folder.check_free()
        self._check_machine()
        data = read_source(config.data, config.seed)
        self._say(*data.report())
        contract = _contract(config, data.class_names)
        validation = Validation(read_validation_set(config.validation, data.class_names), contract)
        job = Job(config, self.machine, data, folder.last, folder.best, self.resume)
        model = self._first_model(job)
        if self.team.leads and not self.resume:
            folder.create(config.to_json())
        ledger = Ledger(folder.metrics_csv, data.class_names)
        watcher = self._watcher(ledger, data.class_names)
        try:
            whole = train(job, model, validation.measure, watcher, self.team, stop)
        finally:
            watcher.ended()
        if whole and self.team.leads:
            self._finish(ledger.epochs, validation)
        return whole

    def _check_machine(self) -> None:
        """Refuse what only the first step would stumble over, when there is a folder already."""
        self.config.share_of_batch(self.team.processes)
        if self.machine.cache:
            ImageCache(self.machine.cache).prepare()

    def _say(self, *lines: str) -> None:
        for line in lines if self.team.leads else ():
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _watcher(self, ledger: Ledger, class_names: Sequence[str]) -> Watcher:
        if not self.team.leads:
            return Watchers(())
        board = Board(self.folder.tensorboard, class_names)
        return Watchers((ProgressBar(self.console), board, ledger))

    def _first_model(self, job: Job) -> YOLOX:
        """The model with its first weights, on the team's device."""
        config = self.config
        torch.manual_seed(config.seed)
        model = build(config.variant, len(job.data.class_names), config.head)
        model.to(self.team.device)
        if config.weights and not self.resume:
            loaded = initialise(model, config.weights)
            self._say(loaded.line())
            if loaded.folded:
                restore_statistics(model, sample_batches(job, self.team.device, STATISTICS_IMAGES))
                self._say(
                    f"measured the statistics of its batch norms on {STATISTICS_IMAGES} images"
                )
        return model

    def _finish(self, epochs: Sequence[EpochRecord], validation: Validation) -> None:
        """Measure the best weights as they are in the file, and export them."""
        folder, config = self.folder, self.config
        model = build(config.variant, validation.contract.num_classes, config.head).eval()
        load_weights(model, folder.best)
        metrics = validation.measure(model.to(self.team.device))
        best = Best(best_epoch(folder.last), metrics)
        folder.finish(epochs, best)
        contract = replace(
            validation.contract,
            version=short_sha256(folder.best),
            provenance=self._provenance(metrics),
        )
        export(model, contract, folder.model)
        self._say(f"best epoch {best.epoch + 1}: {_summary(metrics)}")

    def _provenance(self, metrics: Metrics) -> Provenance:
        source = self.config.data
        learnt = "barcodes" if isinstance(source, DrawnBarcodes) else source.path.name
        return Provenance(
            source="trained with yolox-serve",
            dataset=learnt,
            metrics=f"{_summary(metrics)} on {self.config.validation.path.name}",
        )


def _contract(config: TrainingConfig, class_names: Sequence[str]) -> ModelContract:
    return ModelContract(
        name=f"yolox-{config.variant}",
        version="training",
        input=InputSpec("images", config.height, config.width, dynamic_size=not config.fixed_size),
        class_names=tuple(class_names),
        box_coding=config.box_coding,
    )


def _summary(metrics: Metrics) -> str:
    values = {name: metrics.overall[name] for name in ("AP", "AP50")}
    return ", ".join(f"{name} {value or 0:.4f}" for name, value in values.items())
