"""The location of annotated images on disk; light, so that the command line starts at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

FormName = Literal["coco", "yolo", "voc", "csv"]
# The name of the class of a model that tells no classes apart.
SINGLE_CLASS: Final = "object"
FORM_NAMES: Final[tuple[FormName, ...]] = get_args(FormName)


@dataclass(frozen=True, slots=True)
class Share:
    """A share of a split's images.

    Attributes:
        fraction: The share that is held out, above 0 and below 1.
        seed: Decides which images are held out; the order of the files does not.
        held_out: Whether to take the images that are held out, or the others.
    """

    fraction: float
    seed: int
    held_out: bool

    @property
    def described(self) -> str:
        """How the images were chosen, for a person."""
        return (
            f"{self.fraction:g} of the boxes of each class, as nearly as possible; seed {self.seed}"
        )


@dataclass(frozen=True, slots=True)
class DataSource:
    """The location of annotated images.

    Attributes:
        path: A file or a folder, in any of the forms of `FormName`.
        images: The folder of the images of a COCO json or a CSV file (default: near the file).
        split: Which split, if there are several.
        more: Further data sets, to be read with the first as one.
        form: The form of all of them (default: it is found out).
        class_names: Class id to name (default: as in the files, else sorted).
        share: Which images to take of the split (default: all).
    """

    path: Path
    images: Path | None = None
    split: str = "train"
    more: tuple[Path, ...] = ()
    form: FormName | None = None
    class_names: tuple[str, ...] = ()
    share: Share | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All data sets."""
        return (self.path, *self.more)

    @property
    def name(self) -> str:
        """The name of the data in reports and models."""
        return " + ".join(path.name for path in self.paths)
