import re
from typing import Any

import pytest
from pydantic import ValidationError

from service.__main__ import main
from service.settings import Settings
from service.variables import unknown_variables
from support.project import ROOT

TABLE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
NAMES = sorted(Settings.model_fields)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_documented(name: str) -> None:
    field = Settings.model_fields[name]
    assert field.description
    row = f"| `{name}` |"
    line = next((line for line in TABLE.splitlines() if line.startswith(row)), "")
    assert field.description.replace("|", "\\|") in line


def test_the_documentation_lists_no_setting_that_is_not_there() -> None:
    assert sorted(re.findall(r"^\| `(\w+)` \|", TABLE, re.MULTILINE)) == NAMES


def test_help_shows_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in NAMES:
        assert f"--{name.replace('_', '-')}" in shown


def test_environment_and_flags_set_the_same_things(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOX_MAX_BODY_BYTES", "123")
    assert Settings().max_body_bytes == 123


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["--port", "99999"], "port"),
        (["--device", "abacus"], "device"),
        (["--confidence", "7"], "confidence"),
        (["--api-key", "two words"], "no white space"),
        (["--api-key", "ends\n"], "no white space"),
        (["--api-key", "bell\a"], "no control characters"),
        (["--api-key", "one,,two"], "must not be empty"),
        (["--cors-origins", "https://a.example/"], "without a path"),
        (["--cors-origins", "example.org"], "no origin"),
        (["--cors-origins", "https://*.example.org"], "no origin"),
        (["--trusted-proxies", "10.0.0.0/8,proxy"], "'proxy' does not appear to be"),
        (["--metrics-port", "8000"], "metrics_port must not be the port"),
        (["--unix-socket-mode", "999"], "--unix-socket-mode"),
        (["--max-queue-images", "2"], "max_queue_images must be at least"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    arguments: list[str], culprit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    complaint = capsys.readouterr().err
    assert culprit in complaint
    assert complaint.count("\n") == 1


def test_a_variable_that_is_no_setting_is_told_with_what_was_meant() -> None:
    names = ["YOLOX_MAX_BODY_BYTE", "YOLOX_PORT", "yolox_port", "YOLOX_CPUS", "PATH", "YOLOX_QQQ"]
    assert unknown_variables(names) == {
        "YOLOX_MAX_BODY_BYTE": "YOLOX_MAX_BODY_BYTES",
        "YOLOX_QQQ": None,
    }


def test_variables_of_compose_files_are_no_mistakes() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("docker-compose*.yml"))
    assert unknown_variables(re.findall(r"YOLOX_[A-Z_]+", text)) == {}


def test_settings_cannot_change_once_made() -> None:
    settings: Any = Settings()
    with pytest.raises(ValidationError):
        settings.port = 1
