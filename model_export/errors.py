"""The errors a person at the command line sees: one line each, exit code 1."""


class ModelExportError(Exception):
    """A command cannot do what was asked; the message says why and what to do."""
