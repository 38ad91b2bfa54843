"""The options of `POST /detect`: what may be asked, and what it means for one model."""

import dataclasses
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from starlette.datastructures import ImmutableMultiDict

from service.core.contract import MAX_SIGMA, MIN_SIGMA, NmsMethod, ScoreBy
from service.core.suppress import PRESETS, DetectionOptions, Preset, with_recommended
from service.errors import InvalidOptionError
from service.http.formats import AnswerFormat, BoxForm, Layout
from service.http.option_names import meant_option, meant_word
from service.http.problems import describe_errors

# Options that do not change what is found.
OF_ANSWER: Final = {"format", "boxes", "normalized"}
# Options that say which model is to look.
OF_MODEL: Final = {"model", "version"}
NOT_OF_DETECTION: Final = OF_ANSWER | OF_MODEL | {"classes", "preset", "timeout_ms"}
NUMBERS: Final = ("confidence", "iou", "sigma", "max_detections", "timeout_ms")
FLAGS: Final = ("class_agnostic", "normalized")
# Many clients write the name of a list so: classes[]=cat, classes[0]=cat.
LIST_NAME: Final = re.compile(r"classes\[\d*\]")


def _split_names(value: object) -> object:
    """`a,b` and repeated parameters both make a list of strings; none of them means all."""
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | int) and not isinstance(item, bool) for item in items):
        return value
    return [part.strip() for item in items for part in str(item).split(",") if part.strip()] or None


@dataclasses.dataclass(frozen=True, slots=True)
class RequestLimits:
    """The server's own limits of a request.

    Attributes:
        images: Maximum images.
        detections: Maximum of `max_detections`.
        timeout_ms: Maximum of `timeout_ms`.
    """

    images: int
    detections: int
    timeout_ms: int


class DetectQuery(BaseModel):
    """The options of `POST /detect`; an absent one takes the server's default."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    preset: Preset | None = Field(
        None,
        description="Thresholds and suppression of the `article` or of `yolox`'s own tools, "
        "in place of the server's; other options still count",
    )
    confidence: float | None = Field(None, ge=0, le=1, description="Minimum `score` to report")
    score_by: ScoreBy | None = Field(
        None, description="Score by `objectness`, or `joint` with the class probability"
    )
    nms: NmsMethod | None = Field(None, description="How overlapping boxes are pruned")
    iou: float | None = Field(
        None, ge=0, le=1, description="Overlap above which `soft-mean`, `soft-linear`, `hard` act"
    )
    sigma: float | None = Field(
        None, ge=MIN_SIGMA, le=MAX_SIGMA, description="Width of `soft-gaussian`"
    )
    class_agnostic: bool | None = Field(None, description="Boxes of different classes compete")
    max_detections: int | None = Field(
        None, ge=1, description="Maximum number of boxes in an image"
    )
    classes: Annotated[list[str] | None, BeforeValidator(_split_names)] = Field(
        None, description="Only these classes: names or ids, comma-separated or repeated"
    )
    timeout_ms: int | None = Field(None, ge=1, description="Deadline of the request in ms")
    format: AnswerFormat | None = Field(
        None, description="The answer as `json`, as a `coco` dataset, or as lines of `yolo` labels"
    )
    boxes: BoxForm | None = Field(
        None, description="Form of the boxes in `json`: `xyxy` by default"
    )
    normalized: bool | None = Field(
        None, description="Boxes in `json` as fractions of the image's sides, not in pixels"
    )

    model: str | None = Field(None, description="Name of the model (absent: the default model)")
    version: str | None = Field(
        None, description="Version of the model (absent: the one that is served by default)"
    )

    @field_validator(*NUMBERS, mode="before")
    @classmethod
    def _take_no_flag(cls, value: object) -> object:
        """Python takes true for 1; whoever writes it in JSON meant another option."""
        if isinstance(value, bool):
            raise PydanticCustomError("no_number", "must be a number, not true or false")
        return value

    @field_validator(*FLAGS, mode="before")
    @classmethod
    def _take_no_number(cls, value: object) -> object:
        """In JSON a flag is true or false; a query has nothing but text."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise PydanticCustomError("bool_type", "must be true or false")
        return value

    def resolve(self, defaults: DetectionOptions, class_names: tuple[str, ...]) -> DetectionOptions:
        """Lay these options over the server's defaults.

        Raises:
            InvalidOptionError: A class is unknown.
        """
        asked = self.model_dump(exclude_none=True, exclude=NOT_OF_DETECTION)
        if self.classes is not None:
            asked["class_ids"] = _class_ids(set(self.classes), class_names)
        if self.preset is not None:
            defaults = with_recommended(defaults, PRESETS[self.preset])
        return dataclasses.replace(defaults, **asked)

    def layout(self) -> Layout:
        """The form of the answer."""
        return Layout(**self.model_dump(exclude_none=True, include=OF_ANSWER))

    def check(self, limits: RequestLimits) -> None:
        """Compare the options with the server's limits.

        Raises:
            InvalidOptionError: `max_detections` or `timeout_ms` exceeds its limit.
        """
        for name, limit in (
            ("max_detections", limits.detections),
            ("timeout_ms", limits.timeout_ms),
        ):
            asked = getattr(self, name)
            if asked is not None and asked > limit:
                raise InvalidOptionError(f"{name} may be at most {limit} on this server")

    def with_fields(self, body: "DetectQuery", limits: RequestLimits) -> "DetectQuery":
        """These options of a query and those of its body; the query's win.

        Raises:
            InvalidOptionError: One of the body exceeds its limit, even if the query's is good.
        """
        body.check(limits)
        fields = body.model_dump(exclude_none=True, exclude={"images"})
        return DetectQuery.model_construct(**(fields | self.model_dump(exclude_none=True)))


NO_OPTIONS = DetectQuery()


class DetectJson(DetectQuery):
    """The JSON form of a request: images, and options beside them."""

    images: list[str] = Field(description="Images in base64, or as base64 `data:` URIs")


def read_options(fields: ImmutableMultiDict[str, Any]) -> DetectQuery:
    """The options of a query.

    The last value of a repeated option counts, but of `classes` every one. An option without a
    value counts as absent, as browsers send inputs that were left empty.

    Raises:
        InvalidOptionError: An option is unknown or out of range.
    """
    given: dict[str, object] = {}
    classes: list[str] = []
    for name, value in fields.multi_items():
        if name == "classes" or LIST_NAME.fullmatch(name):
            given["classes"] = classes
            classes.append(value)
        elif value.strip() or name not in DetectQuery.model_fields:
            given[name] = value
    try:
        return DetectQuery.model_validate(given)
    except ValidationError as error:
        raise InvalidOptionError(describe_options(error.errors())) from error


def read_form_options(fields: Sequence[tuple[str, str]]) -> DetectQuery:
    """The options among the text fields of a form.

    HTML forms have fields of their own, such as the submit button or a CSRF token. Those that
    nobody could mean as an option are ignored.

    Raises:
        InvalidOptionError: An option is misspelt or out of range.
    """
    return read_options(ImmutableMultiDict([field for field in fields if option_named(field[0])]))


def option_named(name: str) -> str | None:
    """The option that a field of this name is, or is meant to be; None if it is none."""
    return "classes" if LIST_NAME.fullmatch(name) else meant_option(name, DetectQuery.model_fields)


def describe_options(errors: Sequence[Any]) -> str:
    """Pydantic's findings in one sentence, with the names that unknown ones may stand for."""
    unknown = [item for item in errors if item["type"] == "extra_forbidden"]
    found = [_describe_unknown(str(item["loc"][-1])) for item in unknown]
    others = [item for item in errors if item not in unknown]
    return "; ".join([*found, *([describe_errors(others)] if others else [])])


def _describe_unknown(name: str) -> str:
    meant = meant_option(name, DetectJson.model_fields)
    hint = f"did you mean {meant}?" if meant else "GET /docs lists the options"
    return f"unknown option {name}; {hint}"


def _class_ids(names: set[str], class_names: tuple[str, ...]) -> frozenset[int]:
    known = _ids_by_name(class_names)
    unknown = sorted(names - known.keys())
    if unknown:
        raise InvalidOptionError(
            f"this model has no class {unknown[0]!r}; {_class_hint(unknown[0], class_names)}"
        )
    return frozenset(known[name] for name in names)


def _class_hint(name: str, class_names: tuple[str, ...]) -> str:
    """The class that was probably meant, and where all of them are listed."""
    meant = meant_word(name, class_names)
    hint = f"did you mean {meant}? " if meant else ""
    return f"{hint}GET /model lists its classes"


@lru_cache(maxsize=4)
def _ids_by_name(class_names: tuple[str, ...]) -> dict[str, int]:
    """Names, and ids in digits; a name that looks like another's id is a name."""
    ids = range(len(class_names))
    return {str(i): i for i in ids} | {class_names[i]: i for i in reversed(ids)}
