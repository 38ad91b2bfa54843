"""The released YOLOX models, and how to download, check and adopt one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from model_export.adoption.adopt import AdoptRequest, adopt
from model_export.adoption.download import DownloadError, Progress, RemoteFile, download
from model_export.adoption.usual_thresholds import USUAL_THRESHOLDS
from model_export.data.class_names import COCO_CLASS_NAMES
from model_export.errors import ModelExportError
from model_export.graphs.network import load_network
from model_export.graphs.pixel_values import PixelValues
from service.core.contract import ContractError, ModelContract, Provenance

RELEASE_URL: Final = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0"


@dataclass(frozen=True, slots=True)
class Release:
    """A released ONNX file.

    Attributes:
        file_name: Its name at the release.
        size: Its length in bytes.
        sha256: Its SHA-256 sum, 64 hexadecimal digits.
        metrics: Its published accuracy.
        class_names: One name for each class, in order.
    """

    file_name: str
    size: int
    sha256: str
    metrics: str
    class_names: tuple[str, ...] = COCO_CLASS_NAMES

    @property
    def model_name(self) -> str:
        """`yolox-nano` for `yolox_nano.onnx`."""
        return Path(self.file_name).stem.replace("_", "-")

    @property
    def provenance(self) -> Provenance:
        """Where it comes from; the sum tells an adopted file that it was made from this one."""
        return Provenance(
            source=f"{RELEASE_URL}/{self.file_name} sha256:{self.sha256}",
            dataset="COCO train2017",
            metrics=self.metrics,
            licence="Apache-2.0",
        )


# Sums and sizes as several public projects pin them; accuracy as the YOLOX README gives it.
RELEASES: Final[Mapping[str, Release]] = MappingProxyType(
    {
        "nano": Release(
            "yolox_nano.onnx",
            3_659_407,
            "c789161ed43c8269fcd4e67c67eeeb4e80c622da2eb296a20bc6007bd18a0b7d",
            "COCO val2017 AP 25.8 at 416x416, as published",
        ),
        "tiny": Release(
            "yolox_tiny.onnx",
            20_219_662,
            "427cc366d34e27ff7a03e2899b5e3671425c262ea2291f88bb942bc1cc70b0f7",
            "COCO val2017 AP 32.8 at 416x416, as published",
        ),
        "s": Release(
            "yolox_s.onnx",
            35_858_002,
            "c5c2d13e59ae883e6af3b45daea64af4833a4951c92d116ec270d9ddbe998063",
            "COCO val2017 AP 40.5 at 640x640, as published",
        ),
    }
)


def is_fetched(release: Release, output: Path) -> bool:
    """Whether `output` exists and was adopted from this very release."""
    if not output.is_file():
        return False
    try:
        metadata = load_network(output, (0.0, 255.0)).metadata
        return release.sha256 in ModelContract.from_metadata(metadata).provenance.source
    except (ModelExportError, ContractError):
        return False


def fetch(release: Release, output: Path, base_url: str, on_progress: Progress) -> tuple[str, ...]:
    """Download a released model and adopt it; what is at `output` is replaced.

    Args:
        release: The model.
        output: The ONNX file to write, with its contract.
        base_url: Where the release, or a mirror of it, keeps its files.
        on_progress: Called repeatedly with the number of bytes downloaded so far.

    Returns:
        The notes of the adoption, for the user.

    Raises:
        ModelExportError: The file cannot be had, is not the released one, or cannot be written.
    """
    url = f"{base_url.rstrip('/')}/{release.file_name}"
    # Beside the output, which may be on the only disk that is writable, and under a name that no
    # file of anybody else's has.
    raw = output.with_name(f".{release.file_name}-{release.sha256[:12]}")
    try:
        download(RemoteFile(url, release.size, release.sha256), raw, on_progress)
    except DownloadError as error:
        raise ModelExportError(
            f"{error}. Another way: --base-url with a mirror; or get {release.file_name} "
            f"(SHA-256 {release.sha256}) elsewhere and run "
            f"`yolox-serve adopt {release.file_name}`"
        ) from error
    request = AdoptRequest(
        class_names=release.class_names,
        name=release.model_name,
        pixel_values=PixelValues(),
        recommended=USUAL_THRESHOLDS,
        provenance=release.provenance,
        force=True,
    )
    adoption = adopt(raw, output, request)
    raw.unlink()
    return adoption.notes
