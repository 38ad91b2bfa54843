"""`python -m service`: the server."""

import sys

from service.process.hangup import hold_hangups


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; the exit code is 0 then, 1 if the start failed, 2 on wrong usage."""
    # From the first moment on, a hangup waits for a server that runs. The imports take seconds.
    hold_hangups()
    import service.observe.light_structlog  # noqa: F401, PLC0415
    from service.command.serve import main as serve  # noqa: PLC0415

    return serve(arguments)


if __name__ == "__main__":
    sys.exit(main())
