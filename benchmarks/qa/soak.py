"""Good requests of every form for a while: each gets the right status, and memory stays flat."""

import asyncio
import io
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from PIL import Image

from benchmarks.qa.bodies import as_json, form, raw
from benchmarks.qa.fuzz_images import note
from benchmarks.qa.rig.asking import Ask, ask_all
from benchmarks.qa.rig.neighbours import PHOTO, asking
from benchmarks.qa.rig.service import Service, running
from benchmarks.qa.trial import Findings, Plan, Row

PARTS: Final = 3
MAX_GROWTH: Final = 1.2
PAGE_MIB: Final = 4096 / 2**20


def soak(plan: Plan) -> Row:
    """Ask for a while."""
    findings, seconds = Findings(), plan.amount(long=60, short=6)
    memory = list[float]()
    with running(plan.folder) as service:
        with asking(service.port) as heard:
            for part in range(PARTS):
                requests = _requests(plan.rng("soak", part), seconds / PARTS)
                for request, told in asyncio.run(ask_all(service.port, requests)):
                    note(findings, plan, "soak", request, told)
                memory.append(_resident_mib(service))
        growth = memory[-1] / memory[0]
        # A few seconds fill caches and no more.
        if not plan.is_short and growth > MAX_GROWTH:
            findings.failed.append(f"memory grew from {memory[0]:.0f} to {memory[-1]:.0f} MiB")
        return replace(
            findings.row("soak", heard, service),
            notes=f"memory after the last third: x{growth:.2f}",
        )


def _requests(rng: random.Random, seconds: float) -> Iterator[Ask]:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        yield _request(rng)


def _request(rng: random.Random) -> Ask:
    content = PHOTO.read_bytes() if rng.random() < 0.05 else _picture(rng)
    match rng.randrange(8):
        case 0:
            return replace(form([content] * rng.randint(1, 3)), status=200)
        case 1:
            return replace(as_json([content] * rng.randint(1, 3)), status=200)
        case 2:
            return replace(raw(content[: len(content) // 2]), status=422)
        case 3:
            return replace(raw(content, "confidence=7"), status=422)
        case 4:
            return Ask(b"no picture", {"Content-Type": "text/plain"}, status=415)
        case _:
            return replace(raw(content), status=200)


def _picture(rng: random.Random) -> bytes:
    """A JPEG of one colour, wide or tall and mostly thin, which costs the model little."""
    sides = [rng.randint(200, 1200), rng.randint(8, 80)]
    rng.shuffle(sides)
    colour = tuple(rng.randrange(256) for _ in range(3))
    buffer = io.BytesIO()
    Image.new("RGB", (sides[0], sides[1]), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def _resident_mib(service: Service) -> float:
    text = Path(f"/proc/{service.process.pid}/statm").read_text(encoding="ascii")
    return int(text.split()[1]) * PAGE_MIB
