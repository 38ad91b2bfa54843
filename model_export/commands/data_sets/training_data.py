"""The data of a training, of which drawn barcodes need packages that other data do without."""

from typing import TYPE_CHECKING

from model_export.data.sources import DataSource
from model_export.training.config import DrawnBarcodes

if TYPE_CHECKING:
    from model_export.data.pictures import TrainingData


def read_training_data(
    source: DataSource | DrawnBarcodes, seed: int, validation: DataSource | None = None
) -> "TrainingData":
    """Read the data to learn from, every file once.

    Args:
        source: Where the data are, or what to draw.
        seed: The run's seed, which decides what is drawn.
        validation: The data to measure on, whose classes count if the files do not number them.

    Raises:
        ModelExportError: The annotations or an image cannot be used.
    """
    # Only here, so that `--help` does not wait for OpenCV and other data need no barcode packages.
    if isinstance(source, DrawnBarcodes):
        from model_export.drawing.barcodes.scenes import BarcodeScenes  # noqa: PLC0415

        return BarcodeScenes(source.pictures, seed)
    from model_export.data.checked_images import check_images  # noqa: PLC0415
    from model_export.data.reading import class_names_of, read_source  # noqa: PLC0415

    names = class_names_of(source, validation) if validation else None
    return check_images(read_source(source, names))
