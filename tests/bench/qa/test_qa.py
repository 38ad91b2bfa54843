"""The trials: what they send, what they take for a fault, and that a fault fails the command."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.qa import __main__ as command
from benchmarks.qa.fuzz_images import note
from benchmarks.qa.images import FORMS, damaged, originals
from benchmarks.qa.rig.asking import Ask, Told, fault_of
from benchmarks.qa.rig.neighbours import OBJECTS, Heard
from benchmarks.qa.rig.neighbours import fault_of as fault_of_objects
from benchmarks.qa.rig.programs import MissingProgramError
from benchmarks.qa.rig.service import Service
from benchmarks.qa.trial import Findings, Plan, Row, together
from service.imaging.read import read_image

GOOD = Row("good", 1, (), (), 100.0, Heard(asked=1))


def problem(code: int, slug: str, **changes: Any) -> tuple[int, dict[str, str], bytes]:
    document = {"type": f"urn:problem-type:yolox-serve:{slug}", "status": code}
    content = json.dumps(document | {"request_id": "a"} | changes).encode()
    headers = {"content-type": "application/problem+json", "x-request-id": "a"}
    return code, headers, content


# Hostile input


def test_a_seed_decides_what_is_sent(tmp_path: Path) -> None:
    def files(seed: int) -> list[bytes]:
        rng = Plan(seed, is_short=True, folder=tmp_path).rng("images")
        return [damaged(rng) for _ in range(50)]

    assert files(1) == files(1) != files(2)
    assert len(set(files(1))) > 40


def test_undamaged_files_are_images_of_every_form() -> None:
    assert len(originals()) == len(FORMS)
    for content in originals():
        assert read_image(content, 10**6).width == 96


# Faults that are counted


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"content-type": "application/json"}, b"{}"),
        (200, {"content-type": "image/jpeg"}, b"\xff\xd8\xff"),
        problem(422, "invalid-image"),
        problem(503, "queue-full"),
        problem(504, "deadline-passed"),
    ],
)
def test_documented_answers_are_no_faults(answer: tuple[int, dict[str, str], bytes]) -> None:
    assert fault_of(*answer) is None


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"content-type": "application/json"}, b"{"),
        (200, {"content-type": "text/html"}, b""),
        (502, {}, b""),
        (503, {"content-type": "text/plain"}, b"busy"),
        problem(500, "internal-error"),
        problem(503, "invalid-image"),
        problem(503, "queue-full", status=504),
        problem(503, "queue-full", request_id="b"),
    ],
)
def test_other_answers_are_faults(answer: tuple[int, dict[str, str], bytes]) -> None:
    assert fault_of(*answer)


def objects() -> list[dict[str, Any]]:
    corners = ("x1", "y1", "x2", "y2")
    return [
        {"class_name": name, "box": dict(zip(corners, box, strict=True))}
        for name, box in OBJECTS.items()
    ]


def test_a_neighbour_knows_the_right_boxes() -> None:
    right, moved, lacking = objects(), objects(), objects()[:-1]
    moved[0]["box"]["x1"] -= 50
    assert fault_of_objects(right) is None
    assert fault_of_objects(moved) == "other boxes of ['qr_code']"
    assert fault_of_objects(lacking)
    assert fault_of_objects([*right, right[0]])


def test_an_answer_too_late_is_noted() -> None:
    heard = Heard()
    heard.add(None, 1.0)
    heard.add(None, 11.0)
    heard.add("other boxes", 11.0)
    assert (heard.asked, heard.late, heard.wrong) == (3, [11.0], ["other boxes"])


@pytest.mark.parametrize(
    ("line", "is_error"),
    [
        ('{"level": "error", "event": "unexpected error"}', True),
        ('{"level": "warning", "event": "probe failed"}', False),
        ("Traceback (most recent call last):", True),
        ("ZIPDecode: Decoding error at scanline 0", False),
    ],
)
def test_errors_in_the_log_are_found(tmp_path: Path, line: str, is_error: bool) -> None:
    service = Service(tmp_path)
    service.log.write_text(line + "\n")
    assert service.errors() == [line] * is_error


def test_the_input_of_a_fault_is_kept(tmp_path: Path) -> None:
    plan, findings = Plan(1, is_short=True, folder=tmp_path), Findings()
    for told in (Told(200, None), Told(500, "status 500"), None):
        note(findings, plan, "trial", Ask(b"the body", {}), told)
    assert (findings.tried, len(findings.failed), len(findings.lost)) == (3, 1, 1)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the body"] * 2


# The verdict


@pytest.mark.parametrize(
    ("row", "others", "is_good"),
    [
        (GOOD, 0.0, True),
        (replace(GOOD, failed=("a fault",)), 0.9, False),
        (replace(GOOD, lost=("a loss",)), 0.9, False),
        (replace(GOOD, peak_mib=1025.0), 0.9, False),
        (replace(GOOD, heard=Heard(late=[11.0])), 0.1, False),
        (replace(GOOD, heard=Heard(late=[11.0])), 0.9, True),
        (together("both", [GOOD, replace(GOOD, lost=("a loss",))]), 0.0, False),
        (together("both", [GOOD, replace(GOOD, peak_mib=2000.0)]), 0.0, False),
        (together("both", [GOOD, replace(GOOD, heard=Heard(late=[11.0]))]), 0.0, False),
    ],
)
def test_every_promise_counts(row: Row, others: float, is_good: bool) -> None:
    assert row.is_good(others) is is_good


def ran(monkeypatch: pytest.MonkeyPatch, folder: Path, trial: Any) -> int:
    monkeypatch.setattr(command, "TRIALS", {"trial": trial, "good": lambda plan: GOOD})
    return command.main(["--output", str(folder)])


def test_a_broken_promise_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran(monkeypatch, tmp_path, lambda plan: GOOD) == 0
    broken = replace(GOOD, trial="bad", lost=("one that got lost",))
    assert ran(monkeypatch, tmp_path, lambda plan: broken) == 1
    printed = capsys.readouterr().out
    assert "one that got lost" in printed
    assert printed.splitlines()[-1].startswith("good"), "the trials after it run all the same"


def test_a_trial_whose_programs_are_missing_is_skipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacking(plan: Plan) -> Row:
        raise MissingProgramError("haproxy is not installed")

    assert ran(monkeypatch, tmp_path, lacking) == 0
    assert "skipped: haproxy is not installed" in capsys.readouterr().out


def test_all_trials_together_have_a_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "LONG_LIMIT_S", 1)
    began = time.monotonic()
    assert ran(monkeypatch, tmp_path, lambda plan: time.sleep(30)) == 1
    assert time.monotonic() - began < 20
