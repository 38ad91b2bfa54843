"""Every command in the documents is run here, or a table says why not.

Requests are sent to a real server. Commands of this project that take long, or need files that only
a reader has, are checked for flags that exist. A new command that is neither must be listed here.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from support.project import ROOT
from support.servers import Server
from support.shell_blocks import Command, commands

ADDRESS = "http://127.0.0.1:8000"
PATTERNS = (
    *("*.md", "docs/**/*.md", "docker/*.md", "examples/*.md", "model_export/*.md"),
    *("benchmarks/*.md", "service/models/*.md"),
)
PAGES = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))
COMMANDS = [command for page in PAGES for command in commands(page, ROOT)]

# Sent to a server, as they are written.
REQUEST = re.compile(r"^(?:for photo in .*; do\s+)?curl\b.*http://127\.0\.0\.1:8000", re.DOTALL)
# Programs of this project, whose flags are checked.
PROGRAM = re.compile(
    r"^(?:\S*/)?(?:python3? (?:-m (?:service|model_export|yolox_serve)|benchmarks/\w+\.py)"
    r"|yolox-serve)\b"
)
# The others, by their beginnings, and why they are not run here.
NOT_RUN = {
    r"make \w": "takes long or serves for ever; test_packaging runs some, and all must exist",
    r"(?:\S*/)?pip (?:un)?install|python3 -m venv": "installs; test_packaging installs a wheel",
    r"(?:\w+=\S* )*docker |for id in \$\(docker": "needs Docker; the files are read by other tests",
    r"kubectl |kustomize |helm |for pod in \$\(kubectl": "needs a cluster",
    r"cp -r deploy/kubernetes/overlays/": "copies files for a reader to edit",
    r"mkdir models/|echo '\{\"versions\"|kill -HUP": "tests/service/capture/test_loop.py does it",
    r"export OTEL_": "test_tracing.py sets it",
    r"openssl rand ": "makes a secret",
    r"serve (?:run|deploy) |python deploy/ray/": "needs Ray; test_ray runs both where it is",
    r"torchrun ": "takes several processes; the tests of training start it",
    r"apt-get install": "installs Debian's packages",
    r"(?:\S*/)?python -m benchmarks\.": "takes minutes; tests/bench runs short forms",
    r"\.venv/bin/pre-commit install": "changes the hooks of the checkout",
}


def reason(command: Command) -> str | None:
    """Why a command is not run, if the table says."""
    return next((why for start, why in NOT_RUN.items() if re.match(start, command.text)), None)


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    running = Server(environment={"YOLOX_MODEL": ""})
    try:
        yield running
    finally:
        running.close()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: f"{each.page}: {each.text[:60]}")
def test_each_command_is_run_or_a_reason_is_given(command: Command) -> None:
    assert REQUEST.search(command.text) or PROGRAM.match(command.text) or reason(command), (
        f"list it in {__file__}, or have it run there: {command.text}"
    )


@pytest.mark.parametrize(
    "command",
    [each for each in COMMANDS if REQUEST.search(each.text)],
    ids=lambda each: f"{each.page}: {each.text[:60]}",
)
def test_requests_are_answered(command: Command, running: Server, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    written = command.text.replace(ADDRESS, running.url)
    # Any error status is a failure.
    text = re.sub(r"\bcurl\b", "curl --fail --silent --show-error", written)
    done = subprocess.run(
        ["bash", "-euc", text], cwd=tmp_path, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    # A photo without objects has an empty file of labels.
    assert not files or any(path.stat().st_size for path in files)
    if not files:
        answer = json.loads(done.stdout)
        # The second is the Open Inference Protocol's.
        assert answer.get("results") or answer["outputs"]


def test_python_examples_run(running: Server, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    text = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    run = [sys.executable, "-c", code.replace(ADDRESS, running.url)]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert "qr_code" in done.stdout


@cache
def help_of(*program: str) -> str:
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    run = [sys.executable, *program, "--help"]
    done = subprocess.run(
        run, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def program_of(command: Command) -> tuple[str, ...]:
    """The program of a command, and its subcommand, as arguments of Python."""
    words = command.expanded.split()
    if words[0].endswith("yolox-serve"):
        words[:1] = ["", "-m", "yolox_serve"]
    start = words[1:3] if words[1] == "-m" else words[1:2]
    has_subcommand = "service" not in start and words[1] == "-m"
    rest = words[1 + len(start) :]
    return (*start, *rest[:1]) if has_subcommand and rest and rest[0][0] != "-" else tuple(start)


@pytest.mark.parametrize(
    "command",
    [each for each in COMMANDS if PROGRAM.match(each.text)],
    ids=lambda each: f"{each.page}: {each.text[:60]}",
)
def test_flags_of_our_programs_exist(command: Command) -> None:
    program = program_of(command)
    shown = help_of(*program)
    if program[-1] == "torchrun":
        # The options of another command follow its own.
        shown += help_of(*program[:-1], "train")
    flags = re.findall(r"(?<=\s)--[a-z][\w-]*", command.expanded)
    assert [flag for flag in flags if not re.search(rf"{flag}\b(?!-)", shown)] == []


def test_targets_of_make_exist() -> None:
    made = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {each.text.split()[1] for each in COMMANDS if each.text.startswith("make ")}
    assert named <= made
    assert "serve" in named


def test_an_unlisted_command_is_noticed() -> None:
    unknown = Command("README.md", "rm -rf runs", "rm -rf runs")
    known = REQUEST.search(unknown.text) or PROGRAM.match(unknown.text) or reason(unknown)
    assert not known
