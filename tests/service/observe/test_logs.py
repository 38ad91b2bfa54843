"""Log lines of this service and of libraries, as an operator reads them."""

import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from service.observe.logs import configure_logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    configure_logs("json", "warning")


def test_our_lines_and_those_of_libraries_are_alike(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json", "info")
    structlog.get_logger("service.here").info("request", status=200)
    logging.getLogger("library").warning("look: %s", "there")
    structlog.get_logger("service.here").debug("unseen")
    ours, theirs = map(json.loads, capsys.readouterr().err.splitlines())
    assert (ours["logger"], ours["level"], ours["event"]) == ("service.here", "info", "request")
    assert ours["status"] == 200
    assert (theirs["logger"], theirs["level"]) == ("library", "warning")
    assert theirs["event"] == "look: there"
    assert ours["timestamp"] <= theirs["timestamp"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_exception_is_told_with_its_traceback(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(log_format, "info")
    try:
        [].pop()
    except IndexError:
        structlog.get_logger("service.here").exception("failed", images=2)
    written = capsys.readouterr().err
    assert "Traceback" in written
    assert "IndexError: pop from" in written


class _Value:
    def __repr__(self) -> str:
        return "a value"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("café", "café"),
        ("\udcff.jpg", "\udcff.jpg"),  # a file's name that is no UTF-8
        (b"\xff", "b'\\xff'"),
        (_Value(), "a value"),
        (float("nan"), "NaN"),
        ({"deep": (1, 2.5)}, {"deep": [1, 2.5]}),
    ],
)
def test_a_line_is_json_in_ascii_whatever_it_tells(
    value: object, told: object, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs("json", "info")
    structlog.get_logger("service.here").info("request", value=value)
    line = capsys.readouterr().err
    assert line.isascii()
    assert json.loads(line)["value"] == told


class _Closed:
    def write(self, _text: str) -> None:
        raise BrokenPipeError


def test_nothing_fails_where_nobody_reads_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logs("json", "info")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", _Closed())
        structlog.get_logger("service.here").info("request")
