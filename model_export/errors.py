"""The errors that the command line prints as one line."""


class ModelExportError(Exception):
    """A command cannot do what was asked; the message says why and what to do."""


class UsageError(ModelExportError):
    """The arguments of a command lack something, or contradict one another."""


class InterruptedRunError(ModelExportError):
    """A signal stopped a command, which has saved its work.

    Args:
        message: How to continue; empty if another process prints it.
        signal_number: The signal.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
