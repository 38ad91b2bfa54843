"""How the server has uvicorn speak HTTP."""

import pytest

from service.http.app import create_app
from service.process.listening.uvicorn_config import uvicorn_config
from service.settings import Settings
from support.engines import FakeEngine


@pytest.mark.parametrize(("timeout_s", "whole_s"), [(25, 25), (0.2, 1), (7.5, 8)])
def test_connections_still_open_at_shutdown_are_waited_for_as_long_as_set(
    timeout_s: float, whole_s: int
) -> None:
    settings = Settings(shutdown_timeout_s=timeout_s)
    app = create_app(settings, FakeEngine())
    config = uvicorn_config(app, settings, app)
    assert config.timeout_graceful_shutdown == whole_s
