"""How many connections the system allows: each takes a file descriptor."""

import resource
from typing import Final

import structlog

# Descriptors for the model, libraries, logs and pipes, and for connections that are one too many.
OTHER_FILES: Final = 320

log = structlog.get_logger(__name__)


def allowed_connections(wanted: int) -> int:
    """Raise the limit of open files as far as needed and allowed.

    Args:
        wanted: How many connections may be open at once, for all that the server cares.

    Returns:
        How many the system has file descriptors for; at least 1.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    allowed = max(1, soft - OTHER_FILES)
    log.warning("fewer connections, as few files may be open", connections=allowed, files=soft)
    return allowed
