"""How a command ends: one line for an error, and its exit code."""

import json
import os
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Final, ParamSpec

from model_export.errors import InterruptedRunError, ModelExportError, UsageError
from service.console import WRONG_USAGE, print_error, print_note

Arguments = ParamSpec("Arguments")

# Tells a process that `yolox-serve torchrun` started it.
LAUNCHED: Final = "YOLOX_SERVE_LAUNCHED"
# The extras of packages that a command needs for some arguments only.
PACKAGE_EXTRAS: Final = {
    "onnxruntime": "cpu",
    "torch": "train",
    "zxingcpp": "barcodes",
    "skimage": "barcodes",
    "mlflow": "mlflow",
    "wandb": "wandb",
    "yaml": "train",
}


def command(
    name: str, extra: str
) -> Callable[[Callable[Arguments, None]], Callable[Arguments, int]]:
    """Make a function a command, which gives its exit code: docs/command-line.md lists them.

    Args:
        name: The command's name.
        extra: The extra of pyproject.toml that it needs; the ONNX runtime is an extra of its own.
    """

    def decorated(run: Callable[Arguments, None]) -> Callable[Arguments, int]:
        @wraps(run)
        def reported(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
            # onnxruntime sends telemetry from its import on, unless this variable forbids it.
            os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
            try:
                run(*args, **kwargs)
            except InterruptedRunError as interruption:
                print_note(str(interruption))
                return 128 + interruption.signal_number
            except UsageError as error:
                print_error(f"{error} (see `yolox-serve {name} --help`)")
                return WRONG_USAGE
            except (ModelExportError, OSError) as error:  # a file that cannot be read or written
                _tell(str(error))
                return 1
            except MemoryError:
                _tell(
                    "this machine has too little memory for that; choose a smaller --size, "
                    "--batch-size or --workers"
                )
                return 1
            except ModuleNotFoundError as error:
                _tell(_missing_package(error, name, extra))
                return 1
            return 0

        return reported

    return decorated


def _tell(message: str) -> None:
    """Print an error; a process of several leaves it to `yolox-serve torchrun`, which tells one."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE") if os.environ.get(LAUNCHED) else None
    if not file:
        print_error(message)
        return
    content = {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}
    Path(file).write_text(json.dumps({"message": content}), encoding="utf-8")


def _missing_package(error: ModuleNotFoundError, command_name: str, extra: str) -> str:
    """Name the extra that brings the package.

    Raises:
        ModuleNotFoundError: The module is our own.
    """
    package = error.name or ""
    if not package or package.startswith(("model_export", "service")):
        raise error
    needed = PACKAGE_EXTRAS.get(package.split(".", maxsplit=1)[0], extra)
    return f"`{command_name}` needs the package {package}: pip install 'yolox-serve[{needed}]'"
