"""The commands in fenced `sh` blocks of Markdown."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"(\w+)=(\"[^\"]*\"|\S+)\s*")
LOOP = re.compile(r"(?:for \w+ in .*?; do\s+)+(yolox-serve .*?)(?:;?\s*\bdone)+", re.DOTALL)
COMMENT = re.compile(r"(?:^|\s+)#(?=\s).*$", re.MULTILINE)


class Command(NamedTuple):
    """One command as written, and with the variables that its block sets."""

    page: str
    text: str
    expanded: str


def commands(path: Path, root: Path) -> Iterator[Command]:
    """Every command of a page, in order.

    Assignments are no commands of their own. Loops around our programs yield the commands in them.
    """
    for block in BLOCK.findall(path.read_text(encoding="utf-8")):
        variables: dict[str, str] = {}
        for text in _whole_commands(COMMENT.sub("", block)):
            if assigned := ASSIGNMENT.fullmatch(text):
                variables[assigned[1]] = _expanded(assigned[2].strip('"'), variables)
                continue
            loop = LOOP.fullmatch(text)
            for each in _whole_commands(loop[1]) if loop else [text]:
                written = each.strip()
                yield Command(str(path.relative_to(root)), written, _expanded(written, variables))


def _whole_commands(block: str) -> Iterator[str]:
    """Lines, with those that belong together joined: continuations, quotes and loops."""
    text = ""
    for line in block.splitlines():
        text = f"{text}\n{line}" if text else line
        if text.strip() and not text.endswith("\\") and _is_whole(text):
            yield text
            text = ""
    assert not text.strip(), f"a command that does not end: {text}"


def _is_whole(text: str) -> bool:
    """Whether the shell wants no further line."""
    if not re.search(r"[\"']|\b(?:for|while|until|if)\b|<<|\$\(", text):
        return True
    checked = subprocess.run(
        ["bash", "-n"], input=text, text=True, capture_output=True, check=False
    )
    return checked.returncode == 0


def _expanded(text: str, variables: dict[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda name: variables.get(name[1], name[0]), text)
