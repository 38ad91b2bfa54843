"""Read an ONNX file, or say in plain words what the file is instead."""

import zipfile
from pathlib import Path
from typing import Final

import onnx

from model_export.errors import ModelExportError

HEAD_BYTES: Final = 4096
LFS_POINTER: Final = b"version https://git-lfs"
WEIGHTS: Final = (
    "export them: `yolox-serve export --variant VARIANT --weights {path} --output model.onnx`"
)


def read_onnx(path: Path) -> onnx.ModelProto:
    """Load an ONNX file, with the weights that it keeps in files beside it.

    Raises:
        ModelExportError: It cannot be read, or is another kind of file; the message says which.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        _refuse_other_kinds(path, head)
        model = onnx.load(path)
    except OSError as error:
        what = error.filename or path
        raise ModelExportError(f"cannot read {what}: {error.strerror or error}") from error
    except onnx.checker.ValidationError as error:
        raise ModelExportError(
            f"{path} keeps weights in files beside it, which cannot be read: {error}"
        ) from error
    except Exception as error:  # protobuf's errors share no base class with any other
        if isinstance(error, ModelExportError):
            raise
        raise ModelExportError(_broken(path, head)) from error
    if not model.graph.node:
        raise ModelExportError(_broken(path, head))
    return model


def _broken(path: Path, head: bytes) -> str:
    if looks_like_onnx(head):
        return f"{path} is a truncated or damaged ONNX file; download or export it again"
    return f"{path} is no ONNX file, nor any other kind of model that is known here"


def looks_like_onnx(head: bytes) -> bool:
    """Whether a file begins as ONNX does: with the number of its version."""
    return len(head) > 2 and head[0] == 0x08 and 1 <= head[1] <= 32


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    kind = other_kind(path, head)
    if kind:
        raise ModelExportError(f"{path} {kind.format(path=path)}")


def other_kind(path: Path, head: bytes) -> str | None:
    """Name a file that is no ONNX, and the remedy; None if it may be ONNX.

    Args:
        path: The file; its contents tell most kinds.
        head: Its first bytes.
    """
    if not head:
        return "is empty; download or export it again"
    if head.startswith(LFS_POINTER):
        return "is a pointer of Git LFS and not the file itself; run `git lfs pull`"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "is a web page and not a model; download the file itself, not the page about it"
    if text.startswith((b"<?xml", b"<net")):
        return "is XML, as OpenVINO's models are; adopt the ONNX file that it was made from"
    return _other_model(path, head)


def _other_model(path: Path, head: bytes) -> str | None:
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return f"is a safetensors file, weights without a graph; {WEIGHTS}"
    is_engine = head.startswith((b"ptrt", b"ftrt")) or path.suffix in (".engine", ".trt", ".plan")
    kinds = {
        f"is an old PyTorch checkpoint, weights without a graph; {WEIGHTS}": (
            head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
        ),
        "is a TensorFlow Lite model; adopt the ONNX file that it was made from": (
            head[4:8] == b"TFL3"
        ),
        "is a TensorRT engine; adopt the ONNX file that it was built from": is_engine,
        "is a gzip archive; unpack it first": head.startswith(b"\x1f\x8b"),
    }
    return next((kind for kind, fits in kinds.items() if fits), None)


def _kind_of_zip(path: Path) -> str:

    try:
        names = zipfile.ZipFile(path).namelist()
    except (zipfile.BadZipFile, OSError):
        return "is a truncated zip archive, such as a PyTorch checkpoint; download it again"
    if any("/code/" in name or name.endswith("constants.pkl") for name in names):
        return (
            "is a TorchScript model; export its weights instead, or convert it with "
            "torch.onnx.export"
        )
    if any(name.endswith("data.pkl") for name in names):
        return f"is a PyTorch checkpoint, weights without a graph; {WEIGHTS}"
    if any(name.endswith(".npy") for name in names):
        return f"is a NumPy archive, weights without a graph; {WEIGHTS}"
    return "is a zip archive; unpack it first"
