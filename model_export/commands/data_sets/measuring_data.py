"""Arguments that name the data to measure on."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from model_export.commands.arguments.argument_types import absolute, each_parsed_by
from model_export.commands.data_sets.arguments import DATA, FORMS, Form, ImageFolder
from model_export.data.sources import DataSource
from model_export.errors import UsageError


@Parameter(name="*", group=DATA)
@dataclass(frozen=True)
class MeasuringData:
    """The data to measure on."""

    data: Annotated[
        tuple[Path, ...] | None,
        each_parsed_by(absolute, "PATH"),
        Parameter(name=("--data", "--annotations"), help=f"One or several data sets: {FORMS}"),
    ] = None
    images: ImageFolder = None
    split: Annotated[
        str | None,
        Parameter(metavar="NAME", help="Split of data sets that have several (unset: val)"),
    ] = None
    form: Form = None

    def source(self) -> DataSource:
        """The location of the data.

        Raises:
            UsageError: It is not named.
        """
        from model_export.data.reading import has_own_split, is_divided  # noqa: PLC0415

        if not self.data:
            raise UsageError(f"this needs --data: {FORMS}")
        found = DataSource(self.data[0], self.images, more=self.data[1:], form=self.form)
        divided = is_divided(found) if found.path.is_dir() else has_own_split(found, "val")
        return replace(found, split=self.split or ("val" if divided else "train"))
