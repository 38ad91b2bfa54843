"""A COCO file of a data set's results, written row by row: memory does not grow with the images."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TextIO

from pyarrow.fs import FileSystem

from yolox_client import coco
from yolox_serve.cluster.dataset.listing import NAME
from yolox_serve.cluster.dataset.results import rows_of
from yolox_serve.cluster.dataset.rows import result_of

COLUMNS: Final = (NAME, "width", "height", "detections", "error")


def write_coco(
    filesystem: FileSystem, folder: str, class_names: Sequence[str], out: TextIO
) -> None:
    """Write a COCO dataset, whose `annotations` are what `COCO.loadRes` takes.

    Images that could not be used are left out. The results are read twice, for the images come
    before the annotations.

    Args:
        filesystem: Where the results are.
        folder: The folder of their Parquet files.
        class_names: The names of the model's classes.
        out: Where to write.
    """
    own_ids = coco.category_ids(class_names)
    out.write('{"categories": ')
    json.dump(coco.categories(class_names, own_ids), out, ensure_ascii=False)
    out.write(',\n"images": ')
    _write_list(_images(rows_of(filesystem, folder, COLUMNS)), out)
    out.write(',\n"annotations": ')
    _write_list(_annotations(rows_of(filesystem, folder, COLUMNS), own_ids), out)
    out.write("}\n")


def _images(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    results = filter(None, map(result_of, rows))
    return (coco.coco_image(result, number) for number, result in enumerate(results, 1))


def _annotations(
    rows: Iterable[Mapping[str, Any]], own_ids: Mapping[str, int] | None
) -> Iterator[dict[str, Any]]:
    results = filter(None, map(result_of, rows))
    all_found = (
        coco.annotation(found, image, own_ids)
        for image, result in enumerate(results, 1)
        for found in result.detections
    )
    return ({"id": number} | each for number, each in enumerate(all_found, 1))


def _write_list(entries: Iterable[dict[str, Any]], out: TextIO) -> None:
    separator = "[\n"
    for entry in entries:
        out.write(separator + json.dumps(entry, ensure_ascii=False))
        separator = ",\n"
    out.write("[]" if separator == "[\n" else "\n]")
