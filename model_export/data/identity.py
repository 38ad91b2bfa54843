"""The identity of a data set, wherever it lies: names and contents, not paths."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from model_export.data.annotations import AnnotatedImage, first_few
from model_export.errors import ModelExportError

# Bytes of a hash: 64 bits are plenty to tell the images of one data set apart.
DIGEST_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Identity:
    """Everything about a data set that a training depends on.

    Attributes:
        class_names: Class id to name.
        names: The file names of the images, in their order.
        files: A hash of each image file.
        boxes: A hash of each image's boxes and classes.
    """

    class_names: tuple[str, ...]
    names: tuple[str, ...]
    files: tuple[str, ...]
    boxes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """This as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            KeyError: The object is something else.
        """
        fields = ("class_names", "names", "files", "boxes")
        return cls(*(tuple(content[field]) for field in fields))

    def differences(self, other: "Identity") -> Iterator[str]:
        """How another data set differs from this one, in words for a person; nothing if not."""
        if self.class_names != other.class_names:
            yield f"the classes were {', '.join(self.class_names)}"
        lost = sorted({*self.names} - {*other.names})
        added = sorted({*other.names} - {*self.names})
        if lost:
            yield f"images are missing: {first_few(lost)}"
        if added:
            yield f"images are new: {first_few(added)}"
        if lost or added:
            return
        for what, before, now in (
            ("image files", self.files, other.files),
            ("boxes", self.boxes, other.boxes),
        ):
            changed = [name for name, a, b in zip(self.names, before, now, strict=False) if a != b]
            if changed or len(before) != len(now):
                yield f"{what} changed: {first_few(changed)}"


def identity(
    class_names: Sequence[str], images: Sequence[AnnotatedImage], digests: Sequence[str]
) -> Identity:
    """The identity of annotated images.

    Args:
        class_names: Class id to name.
        images: The images with their boxes.
        digests: A hash of each image file, as `file_digest` gives it.
    """
    return Identity(
        tuple(class_names),
        tuple(image.path.name for image in images),
        tuple(digests),
        tuple(_boxes_digest(image) for image in images),
    )


def file_digest(path: Path) -> str:
    """A hash of a file's content.

    Raises:
        ModelExportError: The file cannot be read.
    """
    try:
        return _digest(path.read_bytes())
    except OSError as error:
        raise ModelExportError(f"cannot read {path}: {error.strerror}") from error


def identities_text(parts: dict[str, Identity]) -> str:
    """The identities of a training's data sets, by their role, as the text of a file."""
    return json.dumps({role: each.to_json() for role, each in parts.items()}) + "\n"


def read_identities(text: str) -> dict[str, Identity]:
    """Read what `identities_text` made.

    Raises:
        ValueError: The text is something else.
    """
    try:
        return {role: Identity.from_json(each) for role, each in json.loads(text).items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"no identities of data sets: {error}") from error


def _boxes_digest(image: AnnotatedImage) -> str:
    # The same bytes on every machine.
    boxes = image.boxes_xyxy.astype("<f4").tobytes()
    return _digest(boxes + image.class_ids.astype("<i8").tobytes())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest()
