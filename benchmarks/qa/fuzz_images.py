"""Damaged image files of every format, as raw bodies; some ask for a picture."""

import asyncio
import random
from collections.abc import Iterator
from typing import Final

from benchmarks.qa.images import damaged
from benchmarks.qa.rig.asking import Ask, Told, ask_all
from benchmarks.qa.rig.neighbours import asking
from benchmarks.qa.rig.service import running
from benchmarks.qa.trial import Findings, Plan, Row

TYPES: Final = ("image/jpeg", "image/png", "application/octet-stream")
ANSWERS: Final = ("application/json", "application/json", "image/jpeg", "image/png")
QUERIES: Final = ("", "", "confidence=0", "nms=none&confidence=0.01")


def fuzz_images(plan: Plan) -> Row:
    """Send damaged images."""
    rng, count = plan.rng("images"), plan.amount(long=4000, short=300)
    return send_all(plan, "fuzz_images", (_request(rng) for _ in range(count)))


def send_all(plan: Plan, trial: str, requests: Iterator[Ask]) -> Row:
    """Send requests to a server that a neighbour asks as well; bodies of faults are kept."""
    findings = Findings()
    with running(plan.folder) as service:
        with asking(service.port) as heard:
            for request, told in asyncio.run(ask_all(service.port, requests)):
                note(findings, plan, trial, request, told)
        return findings.row(trial, heard, service)


def note(findings: Findings, plan: Plan, trial: str, request: Ask, told: Told | None) -> None:
    """Count an answer, or that there was none; keep the body of a request that shows a fault."""
    findings.tried += 1
    if told is None or told.fault is not None:
        kept = plan.folder / f"{trial}-{findings.tried}.body"
        kept.write_bytes(request.content)
        where = f"{request.headers} ?{request.query} {kept}"
    if told is None:
        findings.lost.append(f"no answer: {where}")
    else:
        findings.statuses[told.status] += 1
        if told.fault is not None:
            findings.failed.append(f"{told.fault}: {where}")


def _request(rng: random.Random) -> Ask:
    headers = {"Content-Type": rng.choice(TYPES), "Accept": rng.choice(ANSWERS)}
    return Ask(damaged(rng), headers, rng.choice(QUERIES))
