"""The data of a training, of which drawn barcodes need packages that other data do without."""

from typing import TYPE_CHECKING

from model_export.data.sources import DataSource, read_annotations
from model_export.training.config import DrawnBarcodes

if TYPE_CHECKING:
    from model_export.data.pictures import TrainingData


def read_training_data(source: DataSource | DrawnBarcodes, seed: int) -> "TrainingData":
    """Read the data to learn from, every file once.

    Args:
        source: Where the data are, or what to draw.
        seed: The run's seed, which decides what is drawn.

    Raises:
        ModelExportError: The annotations or an image cannot be used.
    """
    # Only here, so that `--help` does not wait for OpenCV and other data need no barcode packages.
    if isinstance(source, DrawnBarcodes):
        from model_export.drawing.barcodes.scenes import BarcodeScenes  # noqa: PLC0415

        return BarcodeScenes(source.pictures, seed)
    from model_export.data.checked_images import check_images  # noqa: PLC0415

    return check_images(read_annotations(source.path, source.images, split=source.split))
