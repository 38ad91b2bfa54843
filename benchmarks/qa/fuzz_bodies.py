"""Damaged forms and JSON documents, and options of every kind and none."""

import json
import random
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlencode

from benchmarks.qa.bodies import BOUNDARY, as_json, form, raw
from benchmarks.qa.fuzz_images import send_all
from benchmarks.qa.images import originals
from benchmarks.qa.rig.asking import Ask
from benchmarks.qa.trial import Plan, Row

MAX_DAMAGES: Final = 3
TYPES: Final = (
    "application/json",
    "application/json; charset=utf-16",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    f"multipart/form-data; boundary={BOUNDARY}",
    f"multipart/mixed; boundary={BOUNDARY}",
    "multipart/form-data; boundary=" + "b" * 300,
    "application/x-www-form-urlencoded",
    "image/svg+xml",
    "text/plain",
    "",
    'a/b; c="d',
)
OPTIONS: Final = (
    *("confidence", "score_by", "nms", "iou", "sigma", "class_agnostic", "max_detections"),
    *("classes", "timeout_ms", "no_option", "images"),
)
VALUES: Final[tuple[Any, ...]] = (
    *(0, 1, -1, 0.5, 1e308, -1e308, 10**30, "", "nan", "inf", "soft-mean", "none", "joint"),
    *(True, None, [], {}, "qr_code", "ü\u2028\U0001f600", "a" * 5000, "\x00", "1,2,3", "0x10"),
)
# Pieces on which parsers of forms and JSON depend.
PIECES: Final = (
    *(b"\r\n", b"\n", b"--", f"--{BOUNDARY}".encode(), b'name="images"', b"filename*=utf-8''a"),
    *(b"Content-Transfer-Encoding: base64\r\n", b"Content-Type: ", b": " + b"x" * 5000),
    *(b"{", b"}", b"[" * 2000, b'"', b"\\u0000", b"\\ud800", b"1e999", b"NaN", b"\xff\xfe", b"\0"),
    *(b'"images":', b"data:image/png;base64,", b"====", b",,"),
)


def fuzz_bodies(plan: Plan) -> Row:
    """Send damaged bodies and options."""
    rng, count = plan.rng("bodies"), plan.amount(long=3000, short=250)
    return send_all(plan, "fuzz_bodies", (_request(rng) for _ in range(count)))


def _request(rng: random.Random) -> Ask:
    request = rng.choice((_form, _json, _document, _raw))(rng)
    for _ in range(rng.randint(0, MAX_DAMAGES)):
        request = replace(request, content=_damaged(request.content, rng))
    if rng.random() < 0.1:
        request = replace(request, headers={"Content-Type": rng.choice(TYPES)})
    if rng.random() < 0.5:
        request = replace(request, query=urlencode(_options(rng), errors="replace"))
    return request


def _form(rng: random.Random) -> Ask:
    return form(_images(rng), {name: str(value) for name, value in _options(rng).items()})


def _json(rng: random.Random) -> Ask:
    return as_json(_images(rng), **_options(rng))


def _document(rng: random.Random) -> Ask:
    content = json.dumps(_tree(rng, 4)).encode()
    return Ask(content, {"Content-Type": "application/json"})


def _raw(rng: random.Random) -> Ask:
    return raw(rng.choice(originals()))


def _images(rng: random.Random) -> list[bytes]:
    return [rng.choice(originals()) for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 33)))]


def _options(rng: random.Random) -> dict[str, Any]:
    names = rng.sample(OPTIONS[:-1], rng.choice((0, 0, 1, 2)))
    return {name: rng.choice(VALUES) for name in names}


def _tree(rng: random.Random, depth: int) -> object:
    """A JSON value of any form, which often has the right names."""
    if depth == 0 or rng.random() < 0.3:
        return rng.choice(VALUES)
    if rng.random() < 0.4:
        return [_tree(rng, depth - 1) for _ in range(rng.randint(0, 4))]
    return {rng.choice(OPTIONS): _tree(rng, depth - 1) for _ in range(rng.randint(0, 4))}


def _damaged(content: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    end = min(end, start + 50) if rng.random() < 0.7 else end
    middle = rng.choice((b"", content[start:end] * 2, rng.choice(PIECES), rng.randbytes(3)))
    return content[:start] + middle + content[end:]
