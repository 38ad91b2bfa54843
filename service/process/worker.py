"""`python -m service.process.worker`: one of the worker processes of a server."""

import json
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import service.observe.light_structlog  # noqa: F401 - before all others
from service.models.shared_state import StateFile
from service.observe.logs import configure_logs
from service.observe.metrics import Metrics
from service.observe.process_group import FOLDER_VARIABLE, write_metrics_as
from service.process.listening.ports import Ports
from service.process.server import SharedPort, serve
from service.process.shared_folder import FolderLock
from service.queue.cpu_sharing import LOADS_FILE, WorkerLoads
from service.settings import Settings

SIGN_OF_LIFE = b"s"


def main(main_fds: str, metrics_fds: str, channel_fd: str, place: str) -> int:
    """Serve on the supervisor's socket until a signal, or until the supervisor is gone.

    The supervisor writes the settings to standard input, as JSON.

    Args:
        main_fds: File descriptors of the bound sockets from which all workers accept connections,
            with commas between them.
        metrics_fds: Those of the sockets that answer /metrics alone.
        channel_fd: File descriptor of a socket on which the supervisor hears signs of life.
        place: Index of this worker, from 0.

    Returns:
        The exit code of the process.
    """
    channel = socket.socket(fileno=int(channel_fd))
    settings = Settings(**json.load(sys.stdin))
    if settings.engine_cache is None:
        # All workers run the engine that the first one measured as the quicker.
        settings = settings.model_copy(update={"engine_cache": Path(os.environ[FOLDER_VARIABLE])})
    configure_logs(settings.log_format, settings.log_level)
    write_metrics_as(int(place))
    folder = Path(os.environ[FOLDER_VARIABLE])
    # The last worker of a supervisor that was killed removes the folder.
    lock = FolderLock(folder)
    metrics = Metrics(folder)
    threading.Thread(target=_end_with_supervisor, args=(channel,), daemon=True).start()
    loads = WorkerLoads.attach(folder / LOADS_FILE, int(place))
    ports = Ports(_sockets(main_fds), _sockets(metrics_fds), remove=lock.remove_if_last)
    shared = SharedPort(ports.main, loads, StateFile(folder), partial(_give_sign, channel))
    return serve(settings, metrics, ports, shared)


def _sockets(fds: str) -> list[socket.socket]:
    return [socket.socket(fileno=int(fd)) for fd in fds.split(",") if fd]


def _give_sign(channel: socket.socket) -> None:
    """Tell the supervisor that this worker serves, unless it has not listened for very long."""
    with suppress(OSError):
        channel.send(SIGN_OF_LIFE, socket.MSG_DONTWAIT)


def _end_with_supervisor(channel: socket.socket) -> None:
    """End this process when the channel closes: the supervisor never writes to it.

    It ends without a grace, as whoever starts the server again needs the port.
    """
    # A supervisor that ended with signs of life unread is told as a connection reset.
    with suppress(OSError):
        channel.recv(1)
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
