"""The digest of a model: of its ONNX file, and of the files beside it that hold its weights."""

import hashlib
import re
from pathlib import Path
from typing import Final

# How protobuf writes an entry of a tensor's `external_data` whose key is `location`: the key, then
# the tag of the value. The value's length comes next, as a varint.
LOCATION: Final = re.compile(rb"\x0a\x08location\x12([\x80-\xff]?[\x00-\x7f])")


def model_digest(path: Path) -> str:
    """SHA-256 of a model, in hexadecimal.

    A model in one file has the digest of that file. Weights outside of it are added by name and
    content.

    Args:
        path: The ONNX file, or any other file, which then counts alone.

    Raises:
        OSError: A file cannot be read.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content)
    for name in external_files(content):
        file = path.parent / name
        if file.is_file():
            digest.update(f"\0{name}\0".encode())
            with file.open("rb") as weights:
                digest.update(hashlib.file_digest(weights, "sha256").digest())
    return digest.hexdigest()


def external_files(content: bytes) -> list[str]:
    """Names of the files, relative to a model's own, that its tensors refer to; sorted.

    Args:
        content: The bytes of an ONNX file.
    """
    names = set()
    for match in LOCATION.finditer(content):
        length = match[1][0] & 0x7F | (match[1][1] << 7 if len(match[1]) > 1 else 0)
        names.add(content[match.end() : match.end() + length].decode(errors="replace"))
    return sorted(name for name in names if not {"..", "/"} & {*Path(name).parts})
