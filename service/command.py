"""The server's command: settings from flags and environment, one line for what is wrong."""

import os
import sys
from collections.abc import Sequence

import structlog
from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from service.errors import StartupError
from service.observe.logs import configure_logs
from service.process.shared_folder import remove_left_folders
from service.process.supervisor import supervise
from service.settings import Settings
from service.variables import unknown_variables

log = structlog.get_logger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; the exit code is 0 then, 1 if the start failed, 2 on wrong usage."""
    try:
        settings = CliApp.run(Settings, cli_args=arguments, cli_exit_on_error=True)
    except (ValidationError, SettingsError) as error:
        sys.stderr.write(f"error: {_one_line(error)}\n")
        return 2
    configure_logs(settings.log_format, settings.log_level)
    for name, meant in unknown_variables(os.environ).items():
        log.warning("this environment variable is no setting", name=name, closest_setting=meant)
    if settings.workers > 1:
        return _supervise(settings, sys.argv[1:] if arguments is None else arguments)
    remove_left_folders()
    # The supervisor of workers neither needs nor loads what serves.
    from service.observe.metrics import Metrics  # noqa: PLC0415
    from service.process.server import serve  # noqa: PLC0415

    return serve(settings, Metrics())


def _supervise(settings: Settings, arguments: Sequence[str]) -> int:
    try:
        return supervise(settings, arguments)
    except StartupError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def _one_line(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}" for item in error.errors()
    )
