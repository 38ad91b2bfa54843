"""A uvicorn whose insides have changed is refused at the start, in one line."""

import subprocess
import sys
import tomllib
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import StartupError
from service.http.connection.uvicorn_check import SUPPORTED, USED, Hook, check_uvicorn
from support.project import ROOT


def test_the_uvicorn_that_is_installed_has_all_that_is_overridden() -> None:
    check_uvicorn()


@pytest.mark.parametrize("hook", [used for used in USED if isinstance(used, Hook)])
def test_a_hook_that_is_gone_is_named(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(hook.owner, hook.name)
    assert hook.complaint() == f"{hook.owner.__name__}.{hook.name} no longer exists"
    with pytest.raises(StartupError, match=f"no longer .*; install '{SUPPORTED}'"):
        check_uvicorn()


def test_a_hook_that_takes_other_arguments_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: Any, cycle: Any, app: Any, context: Any) -> None:
        """Takes one more."""

    monkeypatch.setattr(HttpToolsProtocol, "_start_asgi_task", start)
    with pytest.raises(
        StartupError, match=r"_start_asgi_task now takes \(self cycle app context\)"
    ):
        check_uvicorn()


def test_a_hook_that_nothing_calls_any_more_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_headers_complete(self: Any) -> None:
        self.begin()

    monkeypatch.setattr(HttpToolsProtocol, "on_headers_complete", on_headers_complete)
    with pytest.raises(StartupError, match="on_headers_complete no longer calls"):
        check_uvicorn()


def test_an_attribute_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(self: Any, sockets: Any = None) -> None:
        self.startup(sockets)
        self.shutdown(sockets)

    monkeypatch.setattr(uvicorn.Server, "_serve", serve)
    with pytest.raises(StartupError, match="Server no longer sets lifespan"):
        check_uvicorn()


def test_a_server_on_such_a_uvicorn_says_so_in_one_line_and_exits_with_1() -> None:
    code = (
        "import sys, uvicorn.protocols.http.httptools_impl as impl\n"
        "del impl.HttpToolsProtocol._start_asgi_task\n"
        "import service.__main__ as m; sys.exit(m.main(['--port', '0']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"error: uvicorn {uvicorn.__version__} cannot be used: "
        f"HttpToolsProtocol._start_asgi_task no longer exists; install '{SUPPORTED}'\n"
    )


def test_the_versions_that_the_package_asks_for_are_those_that_are_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert SUPPORTED in project["dependencies"]
