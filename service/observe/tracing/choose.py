"""How requests are traced: by spans, or by carrying on what clients send."""

from service.errors import StartupError
from service.observe.tracing.trace import Carrying, Tracing


def open_tracing(version: str, *, spans: bool) -> Tracing:
    """The tracing of a server.

    Args:
        version: The server's version.
        spans: Whether it is to send spans of its own.

    Raises:
        StartupError: OpenTelemetry's SDK is not installed.
    """
    if not spans:
        return Carrying()
    try:
        from service.observe.tracing.spans import Spans  # noqa: PLC0415 - needs an extra
    except ImportError as error:
        raise StartupError(
            f"`tracing` needs OpenTelemetry's SDK: pip install 'yolox-serve[tracing]' ({error})"
        ) from error
    return Spans(version)
