"""The command line `python -m model_export COMMAND`; `yolox-serve COMMAND` is the same."""

import sys
from collections.abc import Sequence

from model_export.commands.register import add_commands
from service.console import command_app, run

HELP = """\
Make ONNX models that the service takes, and measure them.

Example: `python -m model_export fetch nano`"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit codes are those of `yolox-serve`: docs/command-line.md."""
    app = command_app("python -m model_export", HELP)
    add_commands(app)
    return run(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
