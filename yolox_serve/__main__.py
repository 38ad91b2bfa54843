"""`yolox-serve`, and `python -m yolox_serve`: every command of the project."""

import sys
from collections.abc import Sequence
from typing import Final

from service.process.hangup import hold_hangups

# Beside the client alone nothing else is installed; these come with the package's dependencies.
CLIENT_ALONE: Final = (
    "error: only the client is installed here; for this command, install the package with its "
    "dependencies: pip install 'yolox-serve[cpu]' ({})\n"
)
NOT_INSTALLED: Final = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; docs/command-line.md lists the exit codes."""
    given = sys.argv[1:] if arguments is None else arguments
    if "serve" in given[:1]:
        # From the first moment on, a hangup waits for a server that runs. The imports take seconds.
        hold_hangups()
    try:
        if "serve" in given[:1]:
            import service.observe.light_structlog  # noqa: F401, PLC0415
        from service.console import run  # noqa: PLC0415
        from yolox_serve.app import console_app  # noqa: PLC0415
    except ModuleNotFoundError as error:
        sys.stderr.write(CLIENT_ALONE.format(error))
        return NOT_INSTALLED
    return run(console_app(), given)


if __name__ == "__main__":
    sys.exit(main())
