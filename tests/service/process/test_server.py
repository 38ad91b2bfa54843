"""How the server begins, and has uvicorn speak HTTP."""

import subprocess
import sys

import pytest

from benchmarks.qa.rig.programs import free_port
from service.http.app import create_app
from service.process.listening.uvicorn_config import uvicorn_config
from service.settings import Settings
from support.engines import FakeEngine
from support.project import ROOT


@pytest.mark.parametrize(("timeout_s", "whole_s"), [(25, 25), (0.2, 1), (7.5, 8)])
def test_connections_still_open_at_shutdown_are_waited_for_as_long_as_set(
    timeout_s: float, whole_s: int
) -> None:
    settings = Settings(shutdown_timeout_s=timeout_s)
    app = create_app(settings, FakeEngine())
    config = uvicorn_config(app, settings, app)
    assert config.timeout_graceful_shutdown == whole_s


DURING_IMPORT = """
import os, signal, sys
from service.errors import StartupError
from service.observe.metrics import Metrics
from service.process import server
from service.settings import Settings

# Tests that run in the background of a shell inherit that it is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
load = server.load_first

def load_signalled(*arguments):
    try:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    except BaseException as error:
        if sys.argv[2] == "turned":
            raise StartupError("initialization failed") from error
    return load(*arguments)

server.load_first = load_signalled
sys.exit(server.serve(Settings(port=int(sys.argv[3]), device="cpu"), Metrics()))
"""


@pytest.mark.parametrize(
    ("name", "what", "code"),
    [("SIGTERM", "turned", 0), ("SIGINT", "turned", 130), ("SIGTERM", "swallowed", 0)],
)
def test_a_signal_ends_the_start_though_a_library_makes_something_else_of_it(
    name: str, what: str, code: int
) -> None:
    command = [sys.executable, "-c", DURING_IMPORT, name, what, str(free_port())]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    assert (done.returncode, "error" in done.stderr) == (code, False), done.stderr
