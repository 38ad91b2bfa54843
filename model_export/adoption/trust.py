"""A first sign of whether a file's pixel values are right."""

from pathlib import Path

import numpy as np

from model_export.adoption.reading.choice.choose import MAX_ON_GREY
from model_export.adoption.reading.evidence import probabilities
from model_export.adoption.reading.pictures import grey_picture
from model_export.graphs.network import load_network
from service.core.contract import ModelContract


def objects_on_grey(path: Path, contract: ModelContract) -> float | None:
    """The largest joint score that a file with a contract gives on plain grey, if it is too large.

    Raises:
        ModelExportError: The file cannot be run.
    """
    spec = contract.input
    network = load_network(path, spec.value_range)
    rows = network.run_singly(grey_picture((spec.height, spec.width))[np.newaxis])[0]
    scores = probabilities(rows[:, 4:].astype(np.float32), contract.score_activation)
    largest = float((scores[:, 0] * scores[:, 1:].max(axis=1)).max())
    return largest if largest > MAX_ON_GREY else None
