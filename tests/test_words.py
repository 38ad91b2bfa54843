"""Sentences that readers had to read twice do not come back."""

import re
import subprocess

import pytest

from support.project import ROOT
from support.prose import sentences

# A question may open so; a statement that does has mostly lost its main verb.
OPENING = re.compile(
    r"^(?:Who|Whom|Whose|What|Of|To be"
    r"|(?:At|By|For|From|In|On|To|With) (?:what|which|whom|whose))\b.*[.:;]$"
)
FAULTS = {
    "opens like a question, or with Of": OPENING,
    'says "from nothing" for "from scratch"': re.compile(r"\bfrom nothing\b", re.IGNORECASE),
    'says "least" for "minimum"': re.compile(
        r"(?<!\bat )(?<!-)\bleast\b(?!-side| recently| disturbed)", re.IGNORECASE
    ),
    'says "so many" for a number': re.compile(r"\bso many\b(?! that)", re.IGNORECASE),
}
# Quotes the faults.
EXEMPT = {"tests/test_words.py"}


def tracked_files() -> list[str]:
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        found = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("git, which lists the project's files, cannot read this checkout")
    return [path for path in found.stdout.splitlines() if (ROOT / path).is_file()]


def faults(text: str) -> list[str]:
    return [fault for fault, pattern in FAULTS.items() if pattern.search(text)]


def test_no_sentence_has_to_be_read_twice() -> None:
    found = [
        f"{path}:{sentence.line} {fault}: {sentence.text}"
        for path in tracked_files()
        if path not in EXEMPT
        for sentence in sentences(ROOT / path)
        for fault in faults(sentence.text)
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "Who refer to each other would be kept until the garbage is collected.",
        "Of a body in chunks only the parser sees the end.",
        "To be given sockets, if only none, is to open none.",
        "What the model promises.",
        "Trained from nothing, in three parts.",
        "The least score to report.",
        "Hold so many bytes more.",
    ],
)
def test_what_readers_stumbled_over_is_found(text: str) -> None:
    assert faults(text)


@pytest.mark.parametrize(
    "text",
    [
        "What does a request cost?",
        "At least one image is needed.",
        "There are so many that one has to wait.",
        "The last value of a repeated option counts.",
    ],
)
def test_plain_sentences_pass(text: str) -> None:
    assert not faults(text)
