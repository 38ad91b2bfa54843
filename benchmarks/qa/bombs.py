"""Small files that decode to as many pixels as the server takes, several at once."""

import asyncio
import io
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from PIL import Image

from benchmarks.qa.fuzz_images import note
from benchmarks.qa.rig.asking import Ask, ask_all
from benchmarks.qa.rig.neighbours import asking
from benchmarks.qa.rig.service import running
from benchmarks.qa.trial import Findings, Plan, Row

# Just below the server's limit of 50 megapixels.
SIDE: Final = 7070
AT_ONCE: Final = 4
ANSWERS: Final = ("application/json", "image/jpeg")
ONE_COLOUR: Final = partial(Image.new, size=(SIDE, SIDE))
FORMS: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "PNG with transparency": ("RGBA", "PNG", {"compress_level": 1}),
    "JPEG in CMYK": ("CMYK", "JPEG", {}),
    "WebP of 34 bytes": ("RGB", "WEBP", {"lossless": True, "method": 0}),
    "progressive JPEG": ("RGB", "JPEG", {"progressive": True}),
    "animated WebP": ("RGB", "WEBP", {"save_all": True, "lossless": True, "method": 0}),
    "AVIF with transparency": ("RGBA", "AVIF", {"speed": 10}),
    "TIFF with transparency": ("RGBA", "TIFF", {"compression": "tiff_deflate"}),
    "GIF": ("L", "GIF", {}),
}


def bombs(plan: Plan) -> Row:
    """Send files that unfold."""
    findings, kinds = Findings(), [*FORMS][: plan.amount(long=len(FORMS), short=3)]
    contents = [_bomb(*FORMS[kind]) for kind in kinds]
    requests = _requests(contents, plan.amount(long=2, short=1))
    with running(plan.folder) as service:
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


def _bomb(mode: str, image_format: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    more = {"append_images": [ONE_COLOUR(mode)]} if "save_all" in options else {}
    ONE_COLOUR(mode).save(buffer, image_format, **options, **more)
    return buffer.getvalue()
