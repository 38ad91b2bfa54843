"""`yolox-serve serve`, and `python -m service`: start the server."""

from pathlib import Path
from typing import Annotated

import structlog
from cyclopts import Parameter

from service.command.flags import takes_settings
from service.command.sources import WrongSettingError, read_settings, unknown_names
from service.console import HELP_PANEL, WRONG_USAGE, command_app, print_error, run
from service.errors import StartupError
from service.observe.logs import configure_logs
from service.process.shared_folder import remove_left_folders
from service.process.supervisor import supervise
from service.settings import Settings

log = structlog.get_logger(__name__)


@takes_settings
def serve(
    *,
    config: Annotated[
        Path | None,
        Parameter(
            group=HELP_PANEL, metavar="FILE", help="TOML file of settings", env_var="YOLOX_CONFIG"
        ),
    ] = None,
    **flags: object,
) -> int:
    """Serve a model over HTTP.

    `POST /detect` finds the objects in images. `/` is a page to try the model on, `/docs` describes
    the API, and Prometheus reads `/metrics`. Ctrl-C or SIGTERM ends the server, after the requests
    that it has accepted.

    Each option can also be set by an environment variable (`YOLOX_PORT` for `--port`), by the same
    line in the file `.env` of the current folder, and by a TOML file that `--config` names
    (`port = 8000`). The flag wins; then come the environment, `.env`, secrets mounted at
    /run/secrets, and the TOML file.

    Example: `yolox-serve serve --model model.onnx --port 8080 --confidence 0.4`
    """
    try:
        settings = read_settings(flags, config)
        unknown = unknown_names()
    except WrongSettingError as error:
        print_error(str(error))
        return WRONG_USAGE
    configure_logs(settings.log_format, settings.log_level)
    for name, meant in unknown.items():
        log.warning("this environment variable is no setting", name=name, closest_setting=meant)
    if settings.workers > 1:
        return _supervise(settings)
    remove_left_folders()
    # The supervisor of workers neither needs nor loads what serves.
    from service.observe.metrics import Metrics  # noqa: PLC0415
    from service.process.server import serve as serve_here  # noqa: PLC0415

    return serve_here(settings, Metrics())


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; the exit code is 0 then, 1 if the start failed, 2 on wrong usage."""
    app = command_app("python -m service")
    app.default(serve)
    return run(app, arguments)


def _supervise(settings: Settings) -> int:
    try:
        return supervise(settings)
    except StartupError as error:
        print_error(str(error))
        return 1
