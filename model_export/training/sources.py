"""From where a configuration says data are to data that can be trained on."""

from model_export.data.annotations import read_annotations
from model_export.data.examples import TrainingData, check_images
from model_export.training.config import DataSource, DrawnBarcodes


def read_source(source: DataSource | DrawnBarcodes, seed: int) -> TrainingData:
    """What a run learns from, each file read once.

    Args:
        source: Where it is.
        seed: The run's seed, which decides what is drawn.

    Raises:
        ModelExportError: Something is wrong with the annotations or an image.
    """
    if isinstance(source, DrawnBarcodes):
        # Only here: drawing needs packages that other trainings do without.
        from model_export.drawing.barcodes.scenes import BarcodeScenes  # noqa: PLC0415

        return BarcodeScenes(source.pictures, seed)
    return check_images(read_annotations(source.path, source.images, split=source.split))
