#!/usr/bin/env python3
"""Delete files that no running server reads from an image's site-packages.

The patterns name files of packages that `constraints.txt` pins. Only `check-image.sh` runs the
trimmed image, so only it can notice a missing file.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

UNUSED: Final = (
    # The library for C and C++ programs; the Python module contains its own copy.
    "onnxruntime/capi/libonnxruntime.so.*",
    # OpenVINO for Intel's GPUs and NPUs, for formats other than ONNX, and for C++ programs.
    "openvino/cmake",
    "openvino/include",
    "openvino/libs/cache.json",
    "openvino/libs/libopenvino_auto*_plugin.so",
    "openvino/libs/libopenvino_c.so.*",
    "openvino/libs/libopenvino_hetero_plugin.so",
    "openvino/libs/libopenvino_intel_[gn]pu_plugin.so",
    "openvino/libs/libopenvino_[gijpt]*_frontend.so.*",
    "openvino/tools",
    # Tools for making models.
    "onnxruntime/datasets",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
    # For compiling against a package, and for type checkers.
    "numpy/_core/include",
    "numpy/_core/lib",
    "numpy/f2py",
    "numpy/random/lib",
    "**/*.pyi",
    "**/*.pyx",
    "**/*.pxd",
    # Packages' own tests.
    "**/tests",
)


def unused(site_packages: Path) -> Iterator[Path]:
    """Yield the files and folders that the patterns name."""
    for pattern in UNUSED:
        yield from site_packages.glob(pattern)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def trim(site_packages: Path) -> int:
    """Delete the unused files; return their size in bytes."""
    freed = 0
    for path in list(unused(site_packages)):
        if not path.exists():
            continue  # its folder was deleted
        freed += size_of(path)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return freed


if __name__ == "__main__":
    for name in sys.argv[1:]:
        sys.stdout.write(f"{name}: {trim(Path(name)) / 1e6:.0f} MB less\n")
