"""The records of a run as they come, so that a run that broke off can be resumed."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from yolox_serve.detect.records import Record, as_kept_line, from_fields
from yolox_serve.detect.sources import SourceError


class Journal:
    """A file with a line for the job, and one for each record.

    Args:
        path: The file.
        job: Whatever must be the same when the run is resumed.
        resume: Whether to go on after the records that are there.

    Raises:
        SourceError: There is an unfinished run and it is not to be resumed, or of another job.
    """

    def __init__(self, path: Path, job: Mapping[str, Any], *, resume: bool) -> None:
        self.path = path
        begun = path.exists() and path.stat().st_size > 0
        if begun and not resume:
            raise SourceError(
                f"an unfinished run left {path}; add --resume to go on with it, or remove the file"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        if begun:
            self._check(job)
            self._cut_torn_line()
        self._out = path.open("a", encoding="utf-8")
        if not begun:
            self._out.write(json.dumps(job) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.close()

    def add(self, record: Record) -> None:
        """Keep a record; it is there even if the process is killed."""
        self._out.write(as_kept_line(record))
        self._out.flush()

    def records(self) -> Iterator[Record]:
        """All records, in order."""
        with self.path.open(encoding="utf-8") as lines:
            next(lines, None)
            for line in lines:
                yield from_fields(json.loads(line))

    def remove(self) -> None:
        """Remove the file: the run is complete."""
        self._out.close()
        self.path.unlink()

    def _check(self, job: Mapping[str, Any]) -> None:
        with self.path.open(encoding="utf-8") as lines:
            try:
                before = json.loads(next(lines, ""))
            except ValueError as error:
                raise SourceError(f"{self.path} is no journal of a run; remove it") from error
        different = [name for name in job if before.get(name) != job[name]]
        if different:
            raise SourceError(
                f"the unfinished run in {self.path} had another {different[0]}; run it as before, "
                "or remove the file"
            )

    def _cut_torn_line(self) -> None:
        """Remove a last line that was not written to its end."""
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)
