"""The Parquet files of results: what is in them, row by row and as numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow.compute as pc
from pyarrow import parquet
from pyarrow.fs import FileSelector, FileSystem, FileType

# Rows in memory at a time.
BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class Summary:
    """The numbers of a data set's results.

    Attributes:
        images: Number of images.
        failed: Number of those that could not be used.
        detections: Number of objects.
    """

    images: int
    failed: int
    detections: int


def result_files(filesystem: FileSystem, folder: str) -> list[str]:
    """The paths of the Parquet files in a folder, in the order of their names."""
    found = filesystem.get_file_info(FileSelector(folder, allow_not_found=True))
    paths = (str(info.path) for info in found if info.type is FileType.File)
    return sorted(path for path in paths if path.endswith(".parquet"))


def rows_of(
    filesystem: FileSystem, folder: str, columns: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The rows of all files in a folder, a few at a time."""
    for path in result_files(filesystem, folder):
        with filesystem.open_input_file(path) as opened:
            for batch in parquet.ParquetFile(opened).iter_batches(BATCH, columns=list(columns)):
                yield from batch.to_pylist()


def summarise(filesystem: FileSystem, folder: str) -> Summary:
    """Count what is in the files of a folder."""
    images = failed = detections = 0
    for path in result_files(filesystem, folder):
        with filesystem.open_input_file(path) as opened:
            table = parquet.read_table(opened, columns=["detections", "error"])
        images += table.num_rows
        failed += table.num_rows - table["error"].null_count
        detections += int(pc.sum(pc.list_value_length(table["detections"])).as_py() or 0)
    return Summary(images, failed, detections)
