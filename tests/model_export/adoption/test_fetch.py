"""A released model arrives whole and checked, or not at all."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from model_export.__main__ import main
from model_export.adoption.download import MAX_RESUMES
from model_export.adoption.fetch import RELEASES, Release, fetch, is_fetched
from model_export.errors import ModelExportError
from model_export.graphs.network import load_network
from service.core.contract import ModelContract
from support.onnx_models import calm_yolox_model as tiny_yolox_model

CONTENT = tiny_yolox_model(batch=1, activation="probabilities").SerializeToString()
SUM = hashlib.sha256(CONTENT).hexdigest()
RELEASE = Release("yolox_tiny_test.onnx", len(CONTENT), SUM, "AP 1.0", ("a", "b", "c"))
HALF = len(CONTENT) // 2


@dataclass
class Mirror:
    """A file server that can be told to misbehave.

    Attributes:
        url: Where it listens.
        content: The files that it serves.
        honours_range: Whether it answers 206 to a Range.
        cuts: How many bytes each of the next answers may bring before the connection is cut.
        status: Answer this status to everything, if set.
        asked: The Range header of each request, in order.
    """

    url: str = ""
    content: bytes = CONTENT
    honours_range: bool = True
    cuts: list[int] = field(default_factory=list)
    status: int | None = None
    redirect_from: str = ""
    asked: list[str | None] = field(default_factory=list)


def handler(mirror: Mirror) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if mirror.redirect_from and self.path.startswith(mirror.redirect_from):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix(mirror.redirect_from))
                self.end_headers()
                return
            asked = self.headers.get("Range")
            mirror.asked.append(asked)
            if mirror.status:
                self.send_error(mirror.status)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            if asked and mirror.honours_range:
                self.answer_part(start)
            else:
                self.send_response(200)
                self.send_body(mirror.content)

        def answer_part(self, start: int) -> None:
            total = len(mirror.content)
            if start >= total:
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            self.send_body(mirror.content[start:])

        def send_body(self, body: bytes) -> None:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: mirror.cuts.pop(0)] if mirror.cuts else body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Handler


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    served = Mirror()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(served))
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "yolox-tiny-test.onnx"


def part_of(output: Path) -> Path:
    return output.with_name(f".{RELEASE.file_name}-{SUM[:12]}.part")


def quiet(_: int) -> None:
    pass


def refused(mirror: Mirror, output: Path, release: Release = RELEASE) -> str:
    with pytest.raises(ModelExportError) as caught:
        fetch(release, output, mirror.url, quiet)
    assert not output.exists()
    return str(caught.value)


def test_fetched_model_is_adopted(mirror: Mirror, output: Path) -> None:
    progress: list[int] = []
    fetch(RELEASE, output, mirror.url, progress.append)

    contract = ModelContract.from_metadata(load_network(output, (0, 255)).metadata)
    assert (contract.name, contract.version) == ("yolox-tiny-test", SUM[:12])
    assert contract.class_names == RELEASE.class_names
    assert (contract.input.batch, contract.input.dynamic_size) == (None, True)
    assert contract.provenance.licence == "Apache-2.0"
    assert SUM in contract.provenance.source
    assert progress[-1] == len(CONTENT)
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_half_a_file_is_resumed(mirror: Mirror, output: Path) -> None:
    output.parent.mkdir()
    part_of(output).write_bytes(CONTENT[:HALF])

    fetch(RELEASE, output, mirror.url, quiet)

    assert mirror.asked == [f"bytes={HALF}-"]
    assert is_fetched(RELEASE, output)


def test_whole_part_needs_no_request(mirror: Mirror, output: Path) -> None:
    output.parent.mkdir()
    part_of(output).write_bytes(CONTENT)

    fetch(RELEASE, output, mirror.url, quiet)

    assert mirror.asked == []


def test_part_that_is_too_long_is_started_anew(mirror: Mirror, output: Path) -> None:
    output.parent.mkdir()
    part_of(output).write_bytes(CONTENT + b"more")

    fetch(RELEASE, output, mirror.url, quiet)

    assert mirror.asked == [f"bytes={len(CONTENT) + 4}-", None]
    assert is_fetched(RELEASE, output)


def test_server_that_ignores_ranges_is_read_from_the_start(mirror: Mirror, output: Path) -> None:
    output.parent.mkdir()
    part_of(output).write_bytes(b"x" * HALF)
    mirror.honours_range = False

    fetch(RELEASE, output, mirror.url, quiet)

    assert mirror.asked == [f"bytes={HALF}-"]
    assert is_fetched(RELEASE, output)


def test_cut_connection_is_resumed(mirror: Mirror, output: Path) -> None:
    mirror.cuts = [HALF, 10]

    fetch(RELEASE, output, mirror.url, quiet)

    assert mirror.asked == [None, f"bytes={HALF}-", f"bytes={HALF + 10}-"]
    assert is_fetched(RELEASE, output)


def test_connection_that_keeps_being_cut_is_left_for_a_rerun(mirror: Mirror, output: Path) -> None:
    mirror.cuts = [10] * (MAX_RESUMES + 1)
    message = refused(mirror, output)

    kept = 10 * (MAX_RESUMES + 1)
    assert f"{kept} of {len(CONTENT):,} bytes are kept, run again" in message
    fetch(RELEASE, output, mirror.url, quiet)
    assert mirror.asked[-1] == f"bytes={kept}-"


def test_wrong_sum_is_refused_and_deleted(mirror: Mirror, output: Path) -> None:
    mirror.content = b"x" * len(CONTENT)
    message = refused(mirror, output)

    assert f"expected {SUM}, got {hashlib.sha256(mirror.content).hexdigest()}" in message
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize("content", [b"<html>log in first</html>", CONTENT * 2])
def test_file_of_another_length_is_refused(mirror: Mirror, output: Path, content: bytes) -> None:
    mirror.content = content

    assert f"has {len(content):,} bytes" in refused(mirror, output)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_refusal_of_the_server_is_told(mirror: Mirror, output: Path, status: int) -> None:
    mirror.status = status

    assert f"{RELEASE.file_name} answers {status}" in refused(mirror, output)


def test_redirects_are_followed(mirror: Mirror, output: Path) -> None:
    mirror.redirect_from = "/elsewhere"

    fetch(RELEASE, output, f"{mirror.url}/elsewhere/", quiet)

    assert is_fetched(RELEASE, output)


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:1", "http://[broken", "no-scheme"])
def test_no_server_is_told_with_other_ways(output: Path, base_url: str) -> None:
    message = refused(Mirror(base_url), output)

    assert base_url in message
    assert "--base-url" in message
    assert SUM in message
    assert "yolox-serve adopt" in message


def test_place_that_cannot_be_written_is_told(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert "cannot write" in refused(mirror, tmp_path / "file" / "model.onnx")


def test_another_model_is_not_taken_for_the_release(mirror: Mirror, output: Path) -> None:
    fetch(RELEASE, output, mirror.url, quiet)

    assert not is_fetched(RELEASES["nano"], output)
    output.write_text("not a model")
    assert not is_fetched(RELEASE, output)


@pytest.fixture
def command(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs `fetch nano`, with the small test file in the place of the released one."""
    monkeypatch.setattr("model_export.adoption.fetch.RELEASES", {"nano": RELEASE})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("YOLOX_RELEASE_URL", mirror.url)
    return lambda *arguments: main(["fetch", *arguments])


def test_command_prints_only_the_path(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("yolox_nano") == 0

    path = Path(capsys.readouterr().out.removesuffix("\n"))
    assert is_fetched(RELEASE, path)
    assert path.name == "yolox-tiny-test.onnx"


def test_second_call_makes_no_request(
    command: Callable[..., int], mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    command("nano")
    first = capsys.readouterr().out

    assert command("nano") == 0
    assert capsys.readouterr() == (first, "")
    assert len(mirror.asked) == 1


def test_explicit_output_that_is_something_else_is_kept(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.onnx"
    mine.write_text("precious")

    assert command("nano", "--output", str(mine)) == 1
    assert mine.read_text() == "precious"
    assert "exists and is another model" in capsys.readouterr().err


def test_failure_is_one_line(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("nano", "--base-url", "http://127.0.0.1:1") == 1

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: cannot download http://127.0.0.1:1/")
    assert captured.err.count("\n") == 1


def test_every_release_is_pinned() -> None:
    for model, release in RELEASES.items():
        assert release.file_name == f"yolox_{model}.onnx"
        assert len(bytes.fromhex(release.sha256)) == 32
        assert len(release.class_names) == 80
