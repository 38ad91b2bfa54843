"""`yolox-serve`: help, wrong usage, exit codes, completion, and what a start loads."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import service
from service.command.flags import PANELS
from support.project import ROOT
from yolox_serve.__main__ import main

COMMANDS = {
    "serve": "Serve a model over HTTP",
    "fetch": "Download a released YOLOX model",
    "adopt": "Stamp a contract on",
    "export": "Export a PyTorch checkpoint to ONNX",
    "evaluate": "Measure a server, a file or a checkpoint",
    "demo-data": "Draw a small data set",
    "inspect": "Count the objects of a data set",
    "convert": "Write a data set in another form",
    "preview": "Draw a sheet of augmented training samples",
    "train": "Train a model on a data set",
    "torchrun": "Train on several GPUs or machines",
}
DOCUMENT = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_command_with_what_it_does(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    for name, summary in COMMANDS.items():
        assert re.search(rf"│ {name} +{summary}", shown)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example_and_no_default_that_is_nothing(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Usage: yolox-serve {command}" in shown
    assert "Example: yolox-serve" in shown
    assert "--empty-" not in shown
    assert not re.search(r"--[a-z-]+ (?:STR|INT|FLOAT|BOOL|.*CHOICE\|CHOICE)\b", shown)
    assert not re.search(r"\bnull\b|default:\s+(?:None|\(\)|\"\"|\])", shown.replace("│", " "))


def test_help_of_serve_is_grouped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    titles = re.findall(r"^╭─ (.+?) ─", capsys.readouterr().out, re.MULTILINE)
    assert titles == [*(panel.name for panel in PANELS.values()), "Help"]


def test_every_panel_begins_at_a_setting_that_exists() -> None:
    assert service.settings.Settings.model_fields.keys() >= PANELS.keys()


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{service.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("serv", 'unknown command "serv"; did you mean "serve"?'),
        ("--verison", 'unknown command "--verison"; did you mean --version? (see'),
        ("--hlep", 'unknown command "--hlep"; did you mean --help? (see'),
        ("serve --hepl", "unknown option: --hepl; did you mean --help? (see"),
        ("serve --prot 1", "unknown option: --prot; did you mean --port?"),
        ("serve --port", "--port needs a value"),
        ("serve file", "`file` is more than it takes"),
        ("serve --device cupa", '; did you mean "cuda"?'),
        ("adopt", "SOURCE is missing"),
        ("adopt a.onnx --mean 1 2", "--mean needs 3 values"),
        ("fetch huge", "huge is none of nano, tiny, s"),
        ("train --data a.json", "give exactly one of --output, --resume"),
        ("train --output a --epoch 2", "unknown option: --epoch; did you mean --epochs?"),
        ("train --output run", "this needs --data"),
        ("evaluate --annotations a --images b", "give exactly one of --server, --model, --weights"),
        ("export --weights a --output b --half --compact", "--half and --compact do not go"),
        ("export --output b", "give exactly one of --weights, --run"),
        ("export --weights a --run b", "give exactly one of --weights, --run"),
        ("export --weights a", "--weights needs --output, the file to write"),
        ("convert --too coco --output a", "--to is missing; did you mean --to instead of --too?"),
        ("demo-data --output a --size 8", "invalid value for --size: 8 is below 32"),
    ],
)
def test_wrong_usage_is_one_line_with_the_cure_and_exit_code_2(
    arguments: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert told.err.startswith("error: ")
    assert complaint in told.err
    assert re.search(r"\(see `yolox-serve (?:[a-z-]+ )?--help`\)\n$", told.err)


def test_a_failure_is_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--weights", str(tmp_path / "none.pth"), "--output", "o.onnx"]) == 1
    assert capsys.readouterr().err == (
        f"error: cannot read {tmp_path / 'none.pth'}: there is no such file\n"
    )


def test_a_start_of_the_server_loads_nothing_of_the_other_commands() -> None:
    code = (
        "import sys; from yolox_serve.__main__ import main; main(['serve', '--port', '99999']); "
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "service.command.serve" in loaded
    assert loaded.isdisjoint({"torch", "onnx", "rich", "model_export.commands.fetch", "fastapi"})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ser"], {"serve"}),
        (["serve", "--engine-"], {"--engine-instances", "--engine-threads", "--engine-sizes"}),
        (["serve", "--device", "op"], {"openvino"}),
        (["train", "--preci"], {"--precision"}),
    ],
)
def test_bash_completes_commands_options_and_choices(
    completion: Path, words: list[str], expected: set[str]
) -> None:
    name = re.search(r"complete .*-F (\S+)", completion.read_text(encoding="utf-8"))
    assert name
    quoted = " ".join(f"'{word}'" for word in ("yolox-serve", *words))
    script = (
        f"source {completion}; COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; "
        f"COMP_LINE='yolox-serve {' '.join(words)}'; COMP_POINT=${{#COMP_LINE}}; "
        f"{name[1]} yolox-serve; echo ${{COMPREPLY[@]}}"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) >= expected


@pytest.fixture(scope="module")
def completion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The script that the command installs for bash, in the home of nobody."""
    home = tmp_path_factory.mktemp("home")
    script = home / "completions" / "yolox-serve"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        arguments = ["--install-completion", "--shell", "bash", "--output", str(script)]
        assert main(arguments) == 0
        yield script


def test_new_shells_load_the_completion(completion: Path) -> None:
    assert str(completion) in (completion.parents[1] / ".bashrc").read_text(encoding="utf-8")


def test_the_document_names_every_command_and_exit_code() -> None:
    assert all(f"| `{name}` |" in DOCUMENT for name in COMMANDS)
    assert all(f"| {code} |" in DOCUMENT for code in ("0", "1", "2", "130"))
