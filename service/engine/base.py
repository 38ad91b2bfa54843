"""The interface of engines: the same for every runtime and device."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from service.core.contract import ModelContract
from service.errors import StartupError

Pixels = NDArray[np.uint8]
RawRows = NDArray[np.floating]
Precision = Literal["f32", "f16", "bf16"]

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"
OPENVINO: Final = "OpenVINO"


class ImageRows(NamedTuple):
    """The rows of one image that an engine passes on.

    Attributes:
        raw: (K, 4 + 1 + C) output of the network.
        cells: (K,) int64, the grid cell of each row, ascending; None if every cell has its row.
    """

    raw: RawRows
    cells: NDArray[np.int64] | None = None


class Engine(Protocol):
    """A loaded model as the pipelines call it; several threads may call `infer` at once."""

    @property
    def contract(self) -> ModelContract:
        """The model's contract."""

    @property
    def provider(self) -> str:
        """The execution provider that the model really runs on."""

    @property
    def wanted_provider(self) -> str:
        """The provider that the device setting aims at, as far as this machine has it."""

    @property
    def on_cpu(self) -> bool:
        """Whether the model shares the CPUs with decoding and HTTP."""

    @property
    def precision(self) -> Precision:
        """The number format that the model multiplies in."""

    @property
    def threads(self) -> int:
        """CPU threads of one call of span 1."""

    @property
    def max_batch(self) -> int:
        """Most images of one call."""

    @property
    def spans(self) -> Sequence[int]:
        """How many instances' shares of the CPU one call can use, ascending from 1."""

    def infer(self, images: Sequence[Pixels], span: int = 1) -> RawRows:
        """Run N (H, W, 3) uint8 BGR network inputs; gives (N, A, 4 + 1 + C) raw rows."""


@runtime_checkable
class LoadableEngine(Engine, Protocol):
    """An engine that reads its model from a file."""

    def load(self) -> None:
        """Load the model, check it against its contract and see where it really runs.

        Raises:
            StartupError: The runtime or the file is missing, the contract is missing or wrong, or
                the device is not the one that was asked for.
        """

    def warm(self, size: tuple[int, int]) -> None:
        """Run each kind of call once with inputs of this (height, width) in pixels.

        Raises:
            StartupError: The model cannot run, or its output is not the promised one.
        """

    def cold_sizes(self, sizes: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
        """Those of the (height, width) sizes that are worth a call before a client sends them."""


@runtime_checkable
class ChoosingEngine(Engine, Protocol):
    """An engine that can leave out rows which no image's confidence lets through."""

    def infer_candidates(
        self, images: Sequence[Pixels], thresholds: Sequence[float]
    ) -> list[ImageRows]:
        """Run N (H, W, 3) uint8 BGR network inputs.

        Args:
            images: The inputs.
            thresholds: For each, the raw objectness from which on a row is needed.

        Returns:
            For each image at least the rows whose objectness reaches its threshold.
        """


@dataclass(frozen=True, slots=True)
class CpuShares:
    """How calls share the CPUs, where the CPUs compute.

    Attributes:
        threads: Threads of a call of span 1. With one thread a call runs on its caller's thread,
            so that concurrent calls run side by side on one copy of the weights.
        instances: Calls of span 1 that run at once.
        spans: Multiples of `threads` that a call may ask for, ascending from 1; each beside 1 costs
            another copy of the weights.
    """

    threads: int = 1
    instances: int = 1
    spans: Sequence[int] = (1,)


ONE_THREAD: Final = CpuShares()


# First bytes of a field in ONNX's ModelProto: its files begin with one of them.
ONNX_TAGS: Final = frozenset(b"\x08\x12\x1a\x22\x28\x32\x3a\x42\x72\xa2\xca")
LONGEST_MAGIC: Final = 32
# Files of other kinds that a command line may name by mistake.
NO_MODELS: Final = {
    "a JPEG image": b"\xff\xd8\xff",
    "a PNG image": b"\x89PNG",
    "a GIF image": b"GIF8",
    "a WebP, AVI or WAV file": b"RIFF",
    "a PDF file": b"%PDF",
    "a PyTorch checkpoint or another ZIP archive (export it first: yolox-serve export)": b"PK\3\4",
    "a gzip archive": b"\x1f\x8b",
    "a pointer of Git LFS (fetch the file itself: git lfs pull)": b"version https://git-lfs",
    "a web page": b"<",
    "JSON": b"{",
}


def see_model_file(path: Path) -> None:
    """See that there is a model file to load.

    Raises:
        StartupError: There is none, this user may not read it, or it is plainly of another kind.
    """
    try:
        is_file = path.is_file()
    except OSError as error:  # a folder that is closed to this user, or a name too long
        raise StartupError(f"cannot read the model file {path}: {error.strerror}") from error
    if not is_file:
        raise StartupError(f"there is no model file {path}")
    try:
        with path.open("rb") as file:
            start = file.read(LONGEST_MAGIC)
    except OSError as error:
        raise StartupError(f"cannot read the model file {path}: {error.strerror}") from error
    if start[:1] and start[0] in ONNX_TAGS:
        return
    kinds = (kind for kind, magic in NO_MODELS.items() if start.startswith(magic))
    kind = next(kinds, "of another kind" if start else "empty")
    raise StartupError(f"{path} cannot be loaded: it is {kind}, no ONNX file")


def grey(contract: ModelContract, size: tuple[int, int], count: int = 1) -> Pixels:
    """(N, H, W, 3) uint8 network inputs that hold nothing but padding."""
    return np.full((count, *size, 3), contract.input.pad_value, np.uint8)


def check_rows(raw: RawRows, images: Pixels, contract: ModelContract, name: str) -> None:
    """See that rows have the shape that the contract promises for (N, H, W, 3) images.

    Raises:
        StartupError: They have another.
    """
    promised = contract.rows_shape(*images.shape[:3])
    if raw.shape != promised:
        raise StartupError(
            f"{name}: the model gave an output of shape {raw.shape}, and its contract "
            f"promises {promised}"
        )


def filled_up(images: Sequence[Pixels], count: int) -> Sequence[Pixels]:
    """The images, and as many empty ones as a fixed batch needs besides."""
    return [*images, *[np.zeros_like(images[0])] * (count - len(images))]
