"""The commands of the training package, by name."""

from typing import Final

from cyclopts import App, Group

from model_export.commands.arguments.config_file import options_of_file

MODELS: Final = Group("Get and measure a model", sort_key=2)
TRAINING: Final = Group("Train a model", sort_key=3)


def add_commands(app: App) -> None:
    """Add every command; its module is imported when it runs."""
    for name, group in (
        ("fetch", MODELS),
        ("adopt", MODELS),
        ("export", MODELS),
        ("evaluate", MODELS),
        ("demo-data", TRAINING),
        ("inspect", TRAINING),
        ("convert", TRAINING),
        ("preview", TRAINING),
        ("train", TRAINING),
        ("torchrun", TRAINING),
    ):
        module = f"{'data_sets.' if name in ('inspect', 'convert') else ''}{name.replace('-', '_')}"
        config = (options_of_file,) if name in ("preview", "train") else None
        app.command(f"model_export.commands.{module}:run", name=name, group=group, config=config)
