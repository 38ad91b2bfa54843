"""Every command by the place of its function, which is imported when the command runs."""

from typing import Final

from cyclopts import App, Group

from model_export.commands.register import add_commands
from service.console import HELP_PANEL, command_app

HELP: Final = """\
Train, export and serve YOLOX models.

`yolox-serve COMMAND --help` explains a command; `yolox-serve --install-completion` teaches your
shell to complete its options.

Example: `yolox-serve serve`, and then http://127.0.0.1:8000 in a browser"""

SERVING: Final = Group("Detect objects", sort_key=1)


def console_app() -> App:
    """Make the application; nothing heavy is imported."""
    app = command_app("yolox-serve", HELP)
    app.command("yolox_serve.completion:run", name="--install-completion", group=HELP_PANEL)
    app.command("service.command.serve:serve", name="serve", group=SERVING)
    usage = "Usage: yolox-serve detect [OPTIONS] SOURCE..."
    app.command("yolox_serve.detect.command:detect", name="detect", group=SERVING, usage=usage)
    add_commands(app)
    return app
