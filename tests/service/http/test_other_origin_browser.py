"""A page of another origin in a real Chromium, which detects by the example for JavaScript."""

import base64
import functools
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Error, Page

from support.browser import chromium
from support.project import ROOT
from support.servers import Server

pytestmark = pytest.mark.heavy

EXAMPLES = ROOT / "examples"
DETECT = """async ([url, photo]) => {
  const { detect } = await import("/clients/detect.mjs");
  const bytes = Uint8Array.from(atob(photo), (character) => character.charCodeAt(0));
  const found = await detect(new Blob([bytes]), url, { confidence: 0.3 });
  return found.detections.map((each) => each.class_name);
}"""


class Quiet(SimpleHTTPRequestHandler):
    """Sends the files of the examples, and logs nothing."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def log_message(self, *arguments: object) -> None:
        del arguments


@pytest.fixture(name="site")
def _site() -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(EXAMPLES))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(name="page")
def _page(site: str, tmp_path: Path) -> Iterator[Page]:
    with chromium(tmp_path / "no-camera") as browser:
        page = browser.new_page()
        page.goto(f"{site}/README.md")
        yield page


def classes(page: Page, server: Server) -> list[str]:
    photo = base64.b64encode((EXAMPLES / "parcel.jpg").read_bytes()).decode()
    found: list[str] = page.evaluate(DETECT, [server.url, photo])
    return found


def test_a_page_of_an_origin_that_is_named_detects(page: Page, site: str) -> None:
    with closing(Server("--cors-origins", site)) as server:
        assert classes(page, server) == ["qr_code", "pdf417", "linear"]


def test_a_page_of_another_origin_cannot(page: Page) -> None:
    with closing(Server()) as server, pytest.raises(Error, match="Failed to fetch"):
        classes(page, server)
