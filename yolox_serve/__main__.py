"""`yolox-serve`, and `python -m yolox_serve`: every command of the project."""

import sys
from collections.abc import Sequence

from service.process.hangup import hold_hangups


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; docs/command-line.md lists the exit codes."""
    given = sys.argv[1:] if arguments is None else arguments
    if "serve" in given[:1]:
        # From the first moment on, a hangup waits for a server that runs. The imports take seconds.
        hold_hangups()
        import service.observe.light_structlog  # noqa: F401, PLC0415
    from service.console import run  # noqa: PLC0415
    from yolox_serve.app import console_app  # noqa: PLC0415

    return run(console_app(), given)


if __name__ == "__main__":
    sys.exit(main())
