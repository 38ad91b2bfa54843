"""`yolox-serve adopt`: stamp a contract on a third-party YOLOX file."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Group, Parameter

from model_export.commands.arguments.argument_types import SWITCH, Size, Strides
from model_export.commands.arguments.contract_arguments import (
    LeastSide,
    PixelOptions,
    ProvenanceOptions,
    RecommendedOptions,
    pixel_values,
)
from model_export.commands.reporting import command
from service.core.contract import BoxCoding, ModelContract, ScoreActivation

if TYPE_CHECKING:
    from model_export.adoption.adopt import AdoptRequest

TRIAL: Final = Group("The trial", sort_key=1)
MODEL: Final = Group("The model, where the file itself does not say", sort_key=2)


@Parameter(name="*", group=TRIAL)
@dataclass(frozen=True)
class TrialOptions:
    """How the file is tried."""

    photos: Annotated[
        tuple[Path, ...],
        Parameter(
            name="--try",
            metavar="PHOTO",
            help="A photo of what the model detects, to try it on besides drawn pictures; may be "
            "given several times",
        ),
    ] = ()
    picture: Annotated[
        Path | None,
        Parameter(
            metavar="FILE",
            help="Write the first photo, or else the drawn objects, with the boxes that are found",
        ),
    ] = None
    float_model: Annotated[
        Path | None,
        Parameter(
            metavar="FILE",
            help="For an 8-bit model: the ONNX file it was made from, to compare their boxes",
        ),
    ] = None


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True)
class ModelOptions:
    """Facts about the model."""

    names: Annotated[
        str | None,
        Parameter(
            metavar="coco|FILE",
            help="COCO's class names, or a file of one name per line (unset: the file's own names, "
            "or COCO's if it has 80 classes)",
        ),
    ] = None
    name: Annotated[
        str | None,
        Parameter(metavar="NAME", help="The model's name (unset: the file's, with `-` for `_`)"),
    ] = None
    model_version: Annotated[
        str | None, Parameter(metavar="V", help="Unset: 12 digits of the file's SHA-256")
    ] = None
    size: Annotated[
        Size | None,
        Parameter(help="Default height and width in pixels, if the graph leaves them open"),
    ] = None
    least_side: LeastSide = None
    score_activation: Annotated[
        Literal["auto"] | ScoreActivation,
        Parameter(
            metavar="CHOICE",
            help="The kind of scores; `auto` checks whether all are within 0 and 1",
        ),
    ] = "auto"
    box_coding: Annotated[BoxCoding, Parameter(help="Coding of the raw boxes")] = "yolox"
    strides: Annotated[
        Strides | None,
        Parameter(help="Pixels per cell of each level (unset: found out from the number of rows)"),
    ] = None


@dataclass(frozen=True)
class _Given:
    """Every argument that a request is made of."""

    model: ModelOptions
    trial: TrialOptions
    pixels: PixelOptions
    recommended: RecommendedOptions
    provenance: ProvenanceOptions
    fixed_size: bool
    keep_graph: bool
    force: bool


@command("adopt", extra="fetch")
def run(  # noqa: PLR0913 - each argument is one of the command line
    file: Annotated[Path, Parameter(name="SOURCE", help="The ONNX file")],
    /,
    *,
    output: Annotated[
        Path | None, Parameter(metavar="FILE", help="File to write (unset: models/NAME.onnx)")
    ] = None,
    force: Annotated[bool, SWITCH, Parameter(help="Replace a contract or an output file")] = False,
    fixed_size: Annotated[
        bool, SWITCH, Parameter(help="Leave the graph's height and width as they are")
    ] = False,
    keep_graph: Annotated[
        bool, SWITCH, Parameter(help="Leave the graph's input type and operators as they are")
    ] = False,
    trial: TrialOptions = TrialOptions(),
    model: ModelOptions = ModelOptions(),
    pixels: Annotated[PixelOptions, Parameter(group=MODEL)] = PixelOptions(),
    recommended: RecommendedOptions = RecommendedOptions(),
    provenance: ProvenanceOptions = ProvenanceOptions(),
) -> None:
    """Stamp a contract on a third-party YOLOX ONNX file.

    Run the file on pictures to find out how it takes pixels and gives boxes. Then write a copy that
    has a contract and the output that the server expects. The file is refused if no way of reading
    it gives sensible boxes, or if several do; the error says what was seen. Where the outputs stay
    the same, the copy also accepts any batch and image size, and its graph is optimized.

    Quantise with care: plain static quantisation to 8 bits took YOLOX-nano from an AP of 0.299 to
    0.184. Thresholds that you do not give are those of a replaced contract, or else YOLOX's: joint
    scores from 0.3, hard suppression of all classes together at an IoU of 0.45.

    Example: `yolox-serve adopt their.onnx --names mine.txt --try photo.jpg --output model.onnx`
    """
    # Only here, so that `--help` and the other commands need neither onnx nor onnxruntime.
    from model_export.adoption.adopt import adopt, default_name  # noqa: PLC0415
    from model_export.adoption.show import show_progress  # noqa: PLC0415

    given = _Given(model, trial, pixels, recommended, provenance, fixed_size, keep_graph, force)
    name = model.name or default_name(file)
    output = output or Path("models") / f"{name}.onnx"
    adoption = adopt(file, output, _request(given, name), show_progress())
    sys.stderr.writelines(f"{note}\n" for note in adoption.notes)
    if trial.picture or trial.photos:
        _show_found(adoption.contract, output, trial)
    sys.stdout.write(f"{output}\n")


def _request(given: _Given, name: str) -> "AdoptRequest":
    from model_export.adoption.adopt import AdoptRequest  # noqa: PLC0415
    from model_export.data.class_names import read_class_names  # noqa: PLC0415
    from model_export.data.image_files import read_image  # noqa: PLC0415

    model, trial = given.model, given.trial
    return AdoptRequest(
        class_names=read_class_names(model.names) if model.names else None,
        name=name,
        version=model.model_version,
        size=model.size,
        least_side=model.least_side,
        strides=model.strides,
        score_activation=model.score_activation,
        box_coding=model.box_coding,
        pixel_values=pixel_values(given.pixels),
        photos=tuple(read_image(path) for path in trial.photos),
        float_model=trial.float_model,
        recommended=given.recommended.contract_part(),
        provenance=given.provenance.contract_part(),
        fixed_size=given.fixed_size,
        keep_graph=given.keep_graph,
        force=given.force,
    )


def _show_found(contract: ModelContract, model: Path, trial: TrialOptions) -> None:
    """Tell what the adopted file finds on each photo, and draw it on the first picture."""
    from model_export.adoption.show import found_in_words, show_found  # noqa: PLC0415
    from model_export.data.image_files import read_image  # noqa: PLC0415

    target = trial.picture
    for path in trial.photos or (None,):
        found = show_found(contract, model, read_image(path) if path else None, target)
        told = found_in_words(found, contract)
        sys.stderr.write(f"found on {path or 'the drawn objects'}: {told}\n")
        target = None
