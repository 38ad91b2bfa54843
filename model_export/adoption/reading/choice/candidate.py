"""A reading of a graph, what it finds, and what is known before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from model_export.adoption.reading.choice.pixel_choices import USUAL_VALUES
from model_export.adoption.reading.drawn import Pixels
from model_export.adoption.reading.rows import FORMS, Form, RowReading
from model_export.graphs.pixel_values import PixelValues
from service.core.decode import Detections

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Question:
    """The facts that are known before a graph is tried.

    Attributes:
        class_names: One name for each class.
        values: The pixel values to choose from.
        photos: The user's photos, (h, w, 3) uint8 BGR.
        forms: The forms of boxes to choose from.
        tolerates_grey: If every reading finds objects on plain grey, accept one all the same.
        tries_rare: Whether rare pixel values may be tried besides.
    """

    class_names: tuple[str, ...]
    values: tuple[PixelValues, ...] = USUAL_VALUES
    photos: tuple[Pixels, ...] = ()
    forms: tuple[Form, ...] = FORMS
    tolerates_grey: bool = False
    tries_rare: bool = True

    @property
    def size_of_choice(self) -> int:
        """The number of pixel values to choose from."""
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A reading, and what it finds.

    Attributes:
        values: How pixels are made.
        rows: How rows are read.
        grey: The largest joint score on grey.
        sense: The sum of what is found, by which readings are ranked; see `Found`.
        on_drawn: The part of that sum that drawn pictures have.
        on_photos: The sum of what is found on photos.
        found: The boxes on each picture.
        doubts: Other readings that could be meant, and what they would change, for the user.
    """

    values: PixelValues
    rows: RowReading
    grey: float
    sense: float = 0.0
    on_drawn: float = 0.0
    on_photos: float = 0.0
    found: tuple[Detections, ...] = ()
    doubts: tuple[str, ...] = ()

    def line(self, class_names: Sequence[str]) -> str:
        """The best finds, in words."""
        best: dict[str, float] = {}
        for objects in self.found:
            for score, number in zip(
                objects.scores.tolist(), objects.class_ids.tolist(), strict=True
            ):
                name = class_names[number]
                best[name] = max(score, best.get(name, 0.0))
        told = sorted(best.items(), key=lambda item: -item[1])[:4]
        listed = ", ".join(f"{name} {score:.2f}" for name, score in told) or "nothing"
        return f"{self.values}: {listed}; on grey at most {self.grey:.2f}"
