"""The records of a run as they come, so that a run that broke off can be resumed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from service.engine.base import CPU, CUDA, OPENVINO, TENSORRT
from service.settings import Device
from yolox_serve.detect.records import Record, as_kept_line, from_fields
from yolox_serve.detect.sources import SourceError

# The model by its name, version and digest, and its engine by provider and precision.
FoundBy = Mapping[str, str]

FOUND_BY: Final = "found_by"
OF_ENGINE: Final = {"provider", "precision"}
# How the engine of a provider is asked for.
DEVICES: Final[dict[str, Device]] = {
    CPU: "cpu",
    OPENVINO: "openvino",
    CUDA: "cuda",
    TENSORRT: "tensorrt",
}
SHOWN_DIGITS: Final = 12


def begun_with(path: Path) -> FoundBy:
    """The model and the engine of an unfinished run, as far as its file tells.

    Older files say it in their records alone, which know neither precision nor digest.
    """
    if not path.exists():
        return {}
    with path.open(encoding="utf-8") as lines, suppress(ValueError, AttributeError):
        found_by = json.loads(next(lines, "")).get(FOUND_BY)
        if found_by is None:
            found_by = json.loads(next(lines, "")).get("model")
        return {str(name): str(value) for name, value in (found_by or {}).items()}
    return {}


class Journal:
    """A file with a line for the job, and one for each record.

    Args:
        path: The file.
        job: Whatever must be the same when the run is resumed.
        found_by: The model and its engine, likewise.
        resume: Whether to go on after the records that are there.

    Raises:
        SourceError: There is an unfinished run and it is not to be resumed, of another job, or of
            another model or engine.
    """

    def __init__(
        self, path: Path, job: Mapping[str, Any], found_by: FoundBy, *, resume: bool
    ) -> None:
        self.path = path
        begun = path.exists() and path.stat().st_size > 0
        if begun and not resume:
            raise SourceError(
                f"an unfinished run left {path}; add --resume to go on with it, or remove the file"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        if begun:
            self._check(job)
            self._check_finder(found_by)
            self._cut_torn_line()
        self._out = path.open("a", encoding="utf-8")
        if not begun:
            self._out.write(json.dumps({**job, FOUND_BY: dict(found_by)}) + "\n")

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

    def _check_finder(self, found_by: FoundBy) -> None:
        """See that the rest is found as what is there was; a journal may tell only a part of it."""
        before = begun_with(self.path)
        changed = [each for each in before if found_by.get(each, before[each]) != before[each]]
        if not changed:
            return
        advice = "have that model answer again"
        if set(changed) <= OF_ENGINE:
            advice = "have that engine run the model again (--device for a model here)"
        was, now = (_named(each, changed) for each in (before, found_by))
        raise SourceError(
            f"the unfinished run in {self.path} was begun with {was}, and this would go on with "
            f"{now}; {advice}, or remove the file to begin anew"
        )

    def _cut_torn_line(self) -> None:
        """Remove a last line that was not written to its end."""
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)


def _named(found_by: FoundBy, changed: Sequence[str]) -> str:
    """The model or the engine, with what has changed of it."""
    if set(changed) <= OF_ENGINE:
        return ", ".join(found_by[each] for each in changed)
    name = f"{found_by['name']} version {found_by['version']}"
    if changed == ["digest"]:
        return f"{name} ({found_by['digest'][:SHOWN_DIGITS]})"
    return name
