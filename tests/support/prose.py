"""Every sentence of the project: comments, docstrings, messages and Markdown."""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

# An entry of `Args:`, `Attributes:` or `Raises:`, or of a list: a text of its own.
ENTRY = re.compile(r"^\s*(?:[\w*]+(?:, [\w*]+)*(?: \([^)]*\))?: |[-*] |\d+\. )")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"'*)\]]*\s+(?=[\"'*(\[`]*[A-Z])")
CODE = re.compile(r"``.+?``|`[^`]*`")
FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
SHELL_NAMES = frozenset({"Makefile", ".dockerignore", ".gitignore"})
SHELL_SUFFIXES = frozenset({".sh", ".yml", ".yaml", ".toml", ".Dockerfile", ".txt"})


class Sentence(NamedTuple):
    """A sentence, with every `code span` reduced to a pair of backquotes."""

    line: int
    text: str


def sentences(path: Path) -> list[Sentence]:
    """Every sentence of a file that people read."""
    shell = path.suffix in SHELL_SUFFIXES or path.name in SHELL_NAMES
    if not shell and path.suffix not in (".py", ".md"):
        return []
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        blocks = [*_python_comments(content), *_python_strings(content)]
    else:
        blocks = list(_hash_comments(content) if shell else _markdown_blocks(content))
    return sorted(each for line, text in blocks for each in _split(line, text))


def _split(line: int, text: str) -> Iterator[Sentence]:
    """The sentences of a block that starts at this line; entries of lists stand alone."""
    paragraphs: list[tuple[int, list[str]]] = []
    for number, row in enumerate(text.splitlines(), line):
        entry = ENTRY.match(row)
        if not row.strip() or entry or not paragraphs:
            paragraphs.append((number, []))
        paragraphs[-1][1].append(row[entry.end() :] if entry else row)
    for number, rows in paragraphs:
        joined = CODE.sub("``", " ".join(row.strip() for row in rows)).strip()
        yield from (Sentence(number, part) for part in SENTENCE_END.split(joined) if part)


def _python_comments(content: str) -> Iterator[tuple[int, str]]:
    """Comments; those on successive lines of their own are one block."""
    tokens = tokenize.generate_tokens(io.StringIO(content).readline)
    comments = [
        (token.start[0], token.start[1], token.string.lstrip("#: "))
        for token in tokens
        if token.type == tokenize.COMMENT
    ]
    return _joined(comments)


def _hash_comments(content: str) -> Iterator[tuple[int, str]]:
    rows = enumerate(content.splitlines(), 1)
    return _joined(
        (number, len(row) - len(row.lstrip()), row.strip().lstrip("# "))
        for number, row in rows
        if row.lstrip().startswith("#")
    )


def _joined(comments: Iterable[tuple[int, int, str]]) -> Iterator[tuple[int, str]]:
    """(line, column, text) of comments to blocks: successive lines of the same column."""
    for _, group in groupby(
        enumerate(comments), key=lambda each: (each[1][0] - each[0], each[1][1])
    ):
        rows = [row for _, row in group]
        yield rows[0][0], "\n".join(text for *_, text in rows)


def _python_strings(content: str) -> Iterator[tuple[int, str]]:
    """Docstrings, and the other string literals that have a space: messages and help."""
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def _markdown_blocks(content: str) -> Iterator[tuple[int, str]]:
    """Paragraphs, entries of lists and cells of tables; neither headings nor code."""
    text = FENCE.sub(lambda match: "\n" * match[0].count("\n"), content)
    paragraph: list[str] = []
    for number, row in enumerate([*text.splitlines(), ""], 1):
        if row.startswith(("#", "|")) or not row.strip():
            if paragraph:
                yield number - len(paragraph), "\n".join(paragraph)
            paragraph = []
            yield from ((number, cell) for cell in row.split("|") if row.startswith("|"))
        else:
            paragraph.append(row)
