"""The errors a person at the command line sees: one line each, exit code 1."""


class ModelExportError(Exception):
    """A command cannot do what was asked; the message says why and what to do."""


class InterruptedRunError(ModelExportError):
    """A command was asked to stop by a signal, and has put its work in order.

    Args:
        message: How to go on; empty where another process says it.
        signal_number: The signal.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
