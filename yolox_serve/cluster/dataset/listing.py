"""The list of a data set's images, as Parquet files that Ray reads, and a later run again.

The list is made once. A run that goes on with another takes the same list, so that files which came
or went meanwhile do not matter.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import PurePosixPath
from typing import Final

import pyarrow as pa
from pyarrow import parquet
from pyarrow.fs import FileSelector, FileSystem, FileType

from yolox_serve.detect.sources import IMAGE_SUFFIXES, SourceError

# Rows of a file of the list; Ray reads each in a task of its own.
ROWS_OF_FILE: Final = 20_000
NAME: Final = "filename"
SCHEMA: Final = pa.schema([(NAME, pa.string())])
# Written last: a list without it is not whole.
WHOLE: Final = "_whole"


def write_list(images: Iterator[str], filesystem: FileSystem, folder: str) -> int:
    """Write a list of images, unless it is there already.

    Args:
        images: The names, each once.
        filesystem: Where the list goes.
        folder: Its folder there.

    Returns:
        The number of images.

    Raises:
        SourceError: There are none.
    """
    whole = f"{folder}/{WHOLE}"
    if filesystem.get_file_info(whole).type is FileType.File:
        with filesystem.open_input_stream(whole) as stream:
            return int(stream.readall())
    filesystem.create_dir(folder, recursive=True)
    # A run that was killed while it listed may have left files.
    filesystem.delete_dir_contents(folder)
    count = 0
    while names := list(islice(images, ROWS_OF_FILE)):
        number = count // ROWS_OF_FILE
        table = pa.table({NAME: names}, SCHEMA)
        parquet.write_table(table, f"{folder}/{number:06d}.parquet", filesystem=filesystem)
        count += len(names)
    if not count:
        raise SourceError("there is nothing to look into: no file has the name of an image")
    with filesystem.open_output_stream(whole) as stream:
        stream.write(str(count).encode())
    return count


def images_below(filesystem: FileSystem, folder: str) -> Iterator[str]:
    """The paths of all images in a folder and its folders, relative to it.

    Only one folder's names are in memory at a time.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    folders = [folder]
    while folders:
        found = filesystem.get_file_info(FileSelector(folders.pop()))
        for info in sorted(found, key=lambda each: str(each.path)):
            if info.type is FileType.Directory:
                folders.append(info.path)
            elif PurePosixPath(info.path).suffix.lower() in IMAGE_SUFFIXES:
                yield str(PurePosixPath(info.path).relative_to(folder))
