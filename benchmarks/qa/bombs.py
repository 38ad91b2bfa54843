"""Small files that decode to as many pixels as the server takes, several at once."""

import asyncio
import io
from collections.abc import Iterator
from typing import Any, Final

from PIL import Image

from benchmarks.qa.fuzz_images import note
from benchmarks.qa.rig.asking import Ask, ask_all
from benchmarks.qa.rig.neighbours import asking
from benchmarks.qa.rig.service import running
from benchmarks.qa.trial import Findings, Plan, Row

AT_ONCE: Final = 3
ANSWERS: Final = ("application/json", "image/jpeg")
# Nothing is dropped for its deadline, however slow the machine: every file is decoded.
PATIENT: Final = ("--request-timeout-ms", "60000")
# Just below the server's limit of 50 megapixels, and just below its limit of memory for forms whose
# decoders need more for a pixel.
LARGEST: Final = 7070
COSTLY: Final = 6050
FORMS: Final[dict[str, tuple[int, str, str, dict[str, Any]]]] = {
    "PNG with transparency": (LARGEST, "RGBA", "PNG", {"compress_level": 1}),
    "JPEG in CMYK": (LARGEST, "CMYK", "JPEG", {}),
    "WebP": (COSTLY, "RGB", "WEBP", {"lossless": True, "method": 0}),
    "WebP of 34 bytes": (LARGEST, "RGB", "WEBP", {"lossless": True, "method": 0}),
    "progressive JPEG": (COSTLY, "RGB", "JPEG", {"progressive": True}),
    "animated WebP": (COSTLY, "RGB", "WEBP", {"save_all": True, "lossless": True, "method": 0}),
    "AVIF with transparency": (COSTLY, "RGBA", "AVIF", {"speed": 10}),
    "TIFF with transparency": (LARGEST, "RGBA", "TIFF", {"compression": "tiff_deflate"}),
    "GIF": (LARGEST, "L", "GIF", {}),
}


def bombs(plan: Plan) -> Row:
    """Send files that unfold."""
    findings, kinds = Findings(), [*FORMS][: plan.amount(long=len(FORMS), short=3)]
    contents = [_bomb(*FORMS[kind]) for kind in kinds]
    requests = _requests(contents, plan.amount(long=2, short=1))
    with running(plan.folder, *PATIENT) as service:
        with asking(service.port) as heard:
            for request, told in asyncio.run(ask_all(service.port, requests, AT_ONCE)):
                note(findings, plan, "bombs", request, told)
        return findings.row("bombs", heard, service)


def _requests(contents: list[bytes], rounds: int) -> Iterator[Ask]:
    """Each file several times in a row, so that equal ones meet; every other asks for a picture."""
    for _ in range(rounds):
        for content in contents:
            for number in range(AT_ONCE):
                accept = ANSWERS[number % len(ANSWERS)]
                yield Ask(content, {"Content-Type": "image/*", "Accept": accept})


def _bomb(side: int, mode: str, image_format: str, options: dict[str, Any]) -> bytes:
    image, buffer = Image.new(mode, (side, side)), io.BytesIO()
    frames = {"append_images": [Image.new(mode, (side, side), "white")]}
    image.save(buffer, image_format, **options, **(frames if "save_all" in options else {}))
    return buffer.getvalue()
