"""The settings that a server has with given flags."""

from collections.abc import Sequence

from service.command.flags import takes_settings
from service.command.sources import read_settings
from service.console import command_app, run
from service.settings import Settings


def settings_of(flags: Sequence[str]) -> Settings:
    """The settings of a server that is started with these flags, in this environment.

    Raises:
        SystemExit: The flags are wrong; standard error says how.
    """
    settings: list[Settings] = []

    @takes_settings
    def take(**given: object) -> int:
        settings.append(read_settings(given, None))
        return 0

    app = command_app("the server's flags")
    app.default(take)
    if code := run(app, list(flags)):
        raise SystemExit(code)
    return settings[0]
