"""Workers that hang, as the supervisor counts their silence."""

import socket
from pathlib import Path
from unittest.mock import MagicMock

from service.process.listening.ports import Ports
from service.process.supervisor import HANGS_AFTER_S, LISTENING_S, Supervisor, _Worker
from service.settings import Settings


def test_silence_counts_only_while_the_supervisor_itself_runs(tmp_path: Path) -> None:
    with socket.socket() as listener, socket.socket() as channel:
        supervisor = Supervisor(Settings(workers=2), Ports([listener]), tmp_path)
        serving, starting = (_Worker(place, MagicMock(), channel) for place in (0, 1))
        serving.serving = True
        supervisor._workers = {0: serving, 1: starting}
        # The whole container was paused for an hour.
        supervisor._end_silent_workers(3600.0)
        assert not serving.process.kill.called
        for _ in range(round(HANGS_AFTER_S / LISTENING_S)):
            supervisor._end_silent_workers(LISTENING_S)
        assert serving.process.kill.call_count == 1
        supervisor._end_silent_workers(LISTENING_S)
        assert serving.process.kill.call_count == 1
        assert not starting.process.kill.called
