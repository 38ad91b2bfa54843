"""Arguments that name the data to measure on."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from model_export.commands.arguments.argument_types import AbsolutePath, absolute, each_parsed_by
from model_export.commands.data_sets.arguments import DATA, FORMS
from model_export.data.sources import DataSource, FormName
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
    images: Annotated[
        AbsolutePath | None,
        Parameter(metavar="DIR", help="Images of a COCO json or CSV file (unset: near the file)"),
    ] = None
    split: Annotated[
        str | None,
        Parameter(metavar="NAME", help="Split of data sets that have several (unset: val)"),
    ] = None
    form: Annotated[
        FormName | None, Parameter(help="Form of the data (unset: found out, and told)")
    ] = None

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
