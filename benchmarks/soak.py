"""Whether the server's memory stays flat over very many requests, and how soon it is ready.

    python benchmarks/soak.py [--model MODEL.onnx] [--requests 100000] [-- FLAGS]

Clients send pictures of ever new shapes (mostly thin ones, which cost the model little), as raw
bodies, forms and JSON. Some requests are to be refused (a truncated file, a text, an option out of
range), and some clients disconnect before their answer. The output has

- the seconds from the start of the process until it is ready (limit 2);
- its resident memory after each tenth of the requests: the maximum (limit 300 MiB), and the ratio
  of the last to the first (limit 1.05).
"""

import argparse
import base64
import http.client
import io
import json
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
from overhead import multipart
from overload import EXAMPLE, resident_mib, serving
from PIL import Image

LONGEST_START_S = 2.0
MOST_MIB = 300.0
MOST_GROWTH = 1.05
CLIENTS = 6
REPORTS = 10
CONNECTION_LASTS = 100
IMPATIENT_SHARE = 0.01
SHARES = {"raw": 0.5, "form": 0.15, "json": 0.1, "many boxes": 0.2, "photo": 0.02, "refused": 0.03}


@dataclass(frozen=True)
class Request:
    """A request, and the status that its answer should have."""

    content: bytes
    content_type: str
    status: int = 200
    query: str = ""


def main() -> None:
    """Measure, and print the results with their limits."""
    arguments = _arguments()
    began = time.monotonic()
    with serving(arguments.model, arguments.flags) as (process_id, url):
        started_s = time.monotonic() - began
        print(f"start to ready: {started_s:.2f} s ({_verdict(started_s, LONGEST_START_S)} s)")
        memory = []
        for part in range(REPORTS):
            count = arguments.requests // REPORTS
            statuses = send(url, count, seed=part)
            memory.append(resident_mib(process_id))
            print(f"{memory[-1]:.0f} MiB, {dict(sorted(statuses.items()))}", flush=True)
    print(f"most memory: {max(memory):.0f} MiB ({_verdict(max(memory), MOST_MIB)} MiB)")
    growth = memory[-1] / memory[0]
    print(f"last tenth / first: {growth:.3f} ({_verdict(growth, MOST_GROWTH)})")


def _verdict(value: float, limit: float) -> str:
    return f"{'within' if value <= limit else 'MISSES'} the limit of {limit:g}"


def send(url: str, count: int, seed: int) -> Counter[int]:
    """Send `count` requests, several at once; gives the number of answers with each status.

    Raises:
        SystemExit: An answer has another status than it should have.
    """
    address = httpx.URL(url)
    with ThreadPoolExecutor(CLIENTS) as threads:
        clients = [
            threads.submit(_client, address, count // CLIENTS, f"{seed} {number}")
            for number in range(CLIENTS)
        ]
        return sum((client.result() for client in clients), Counter[int]())


def _client(address: httpx.URL, count: int, seed: str) -> Counter[int]:
    statuses = Counter[int]()
    rng = random.Random(seed)  # noqa: S311 - no secret
    for first in range(0, count, CONNECTION_LASTS):
        lasts = min(CONNECTION_LASTS, count - first)
        with closing(http.client.HTTPConnection(address.host, address.port, timeout=60)) as server:
            statuses.update(filter(None, (_ask(server, address.path, rng) for _ in range(lasts))))
    return statuses


def _ask(server: http.client.HTTPConnection, path: str, rng: random.Random) -> int | None:
    """Send a request; gives the status, or None if the client left before the answer."""
    request = random_request(rng)
    headers = {"Content-Type": request.content_type}
    server.request("POST", f"{path}?{request.query}", request.content, headers)
    if rng.random() < IMPATIENT_SHARE:
        server.close()
        return None
    response = server.getresponse()
    answer = response.read()
    if response.status != request.status:
        raise SystemExit(f"error: {response.status} instead of {request.status}: {answer!r}")
    return response.status


def random_request(rng: random.Random) -> Request:
    """A random request, of one of the kinds in `SHARES`."""
    content = picture(rng)
    match rng.choices(list(SHARES), list(SHARES.values()))[0]:
        case "photo":
            return Request(EXAMPLE.read_bytes(), "image/jpeg")
        case "form":
            form = multipart(content)
            return Request(form.content, form.content_type)
        case "json":
            images = [base64.b64encode(content).decode()] * rng.randint(1, 3)
            return Request(json.dumps({"images": images}).encode(), "application/json")
        case "many boxes":
            return Request(content, "image/jpeg", query="confidence=0.01")
        case "refused":
            return rng.choice(
                (
                    Request(content[: len(content) // 2], "image/jpeg", 422),
                    Request(b"no picture", "text/plain", 415),
                    Request(content, "image/jpeg", 422, "confidence=7"),
                )
            )
        case _:
            return Request(content, "image/jpeg")


def picture(rng: random.Random) -> bytes:
    """A JPEG of one colour, wide or tall and mostly thin."""
    sides = [rng.randint(200, 1200), rng.randint(8, 80)]
    rng.shuffle(sides)
    buffer = io.BytesIO()
    color = tuple(rng.randrange(256) for _ in range(3))
    Image.new("RGB", (sides[0], sides[1]), color).save(buffer, "jpeg")
    return buffer.getvalue()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="ONNX file (default: the embedded one)")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("flags", nargs="*", help="more flags of the server, after --")
    return parser.parse_args()


if __name__ == "__main__":
    main()
