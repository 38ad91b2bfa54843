"""The command line: `python -m model_export COMMAND`."""

import argparse
import os
import sys
from collections.abc import Sequence

from model_export.commands import adopt, demo_data, evaluate, export, fetch, preview, train
from model_export.commands.data_sets import convert, inspect
from model_export.errors import InterruptedRunError, ModelExportError

# The extra of pyproject.toml that each command needs; the ONNX runtime is an extra of its own.
EXTRAS = {
    "fetch": "fetch",
    "adopt": "fetch",
    "export": "train",
    "preview": "train",
    "train": "train",
    "evaluate": "evaluate",
    "demo-data": "train",
    "inspect": "train",
    "convert": "train",
}
# The extras of packages that a command needs for some arguments only.
PACKAGE_EXTRAS = {
    "onnxruntime": "cpu",
    "torch": "train",
    "zxingcpp": "barcodes",
    "skimage": "barcodes",
    "yaml": "train",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit code: 0, 1 for an error, 128 + N for signal N."""
    # onnxruntime sends telemetry from its import on, unless this variable forbids it.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except InterruptedRunError as interruption:
        if str(interruption):
            print(interruption, file=sys.stderr)
        return 128 + interruption.signal_number
    except ModelExportError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith(("model_export", "service")):
            raise
        return _fail(_missing_package(error.name, arguments.command))
    except OSError as error:  # a file that cannot be read or written, in any command
        return _fail(str(error))
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model_export",
        description="Make ONNX models that the service takes, and measure them.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module, summary in (
        ("fetch", fetch, "download a released YOLOX model and adopt it"),
        ("adopt", adopt, "stamp a contract on a third-party YOLOX ONNX file"),
        ("export", export, "export a PyTorch checkpoint to ONNX"),
        ("inspect", inspect, "count what is in a data set, and warn of what is wrong"),
        ("convert", convert, "write a data set in another form"),
        ("train", train, "train a model on a data set, and export it"),
        ("demo-data", demo_data, "draw a small data set for a first training"),
        ("preview", preview, "draw a sheet of augmented training samples"),
        ("evaluate", evaluate, "measure a server, a file or a checkpoint on a COCO data set"),
    ):
        command = commands.add_parser(name, help=summary)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _fail(message: str) -> int:
    """Print an error as one line, even if its message has several."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 1


def _missing_package(package: str, command: str) -> str:
    extra = PACKAGE_EXTRAS.get(package.split(".", maxsplit=1)[0], EXTRAS[command])
    return f"`{command}` needs the package {package}: pip install 'yolox-serve[{extra}]'"


if __name__ == "__main__":
    sys.exit(main())
