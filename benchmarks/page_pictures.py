#!/usr/bin/env python3
"""Take the pictures of the page that docs/page.md shows: `python benchmarks/page_pictures.py`."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

from support.browser import chromium, page_of  # noqa: E402
from support.servers import Server  # noqa: E402

PHOTO = ROOT / "examples" / "parcel.jpg"
EMBEDDED = ROOT / "service" / "models" / "barcodes.onnx"
DESKTOP = {"width": 1280, "height": 1100}
WARM_UP = 4
PHONE = {"width": 390, "height": 844}


def main() -> None:
    """Start a server and a browser, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="folder of the pictures")
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        models = ["--models", str(two_models(folder / "models"))]
        url = stack.enter_context(started(*models))
        locked = stack.enter_context(started("--api-key", "key"))
        film = folder / "camera.mjpeg"
        film.write_bytes(PHOTO.read_bytes())
        with chromium(film) as browser:
            take(browser, url, output / "page-light.jpg")
            take(browser, url, output / "page-dark.jpg", color_scheme="dark")
            take(browser, url, output / "page-phone.jpg", viewport=PHONE)
            take_error(browser, url, output / "page-error.jpg")
            with page_of(browser, locked, viewport=DESKTOP) as page:
                page.get_by_role("dialog").wait_for()
                save(page, output / "page-key.jpg")


def two_models(folder: Path) -> Path:
    """A folder with the embedded model under two names, so that the page offers a choice."""
    for name in ("barcodes", "barcodes-of-mine"):
        path = folder / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        shutil.copy(EMBEDDED, path)
    return folder


@contextmanager
def started(*flags: str) -> Iterator[str]:
    """The address of a server."""
    server = Server(*flags)
    try:
        yield server.url
    finally:
        server.close()


def take(browser: Browser, url: str, path: Path, **options: object) -> None:
    """Take a picture of the page with the photo."""
    with page_of(browser, url, **{"viewport": DESKTOP} | options) as page:
        page.get_by_role("form", name="Settings").wait_for()
        # The first answers of a server take longer.
        for _ in range(WARM_UP):
            page.locator("#file").set_input_files(PHOTO)
            page.wait_for_timeout(1000)
            page.get_by_text("as the server answered").wait_for()
        save(page, path)


def take_error(browser: Browser, url: str, path: Path) -> None:
    """Take a picture of the page after a file that is no image."""
    with page_of(browser, url, viewport=DESKTOP) as page:
        page.get_by_role("form", name="Settings").wait_for()
        page.locator("#file").set_input_files(ROOT / "README.md")
        page.get_by_role("alert").first.wait_for()
        save(page, path)


def save(page: Page, path: Path) -> None:
    """Write a picture of what the browser shows."""
    page.wait_for_timeout(300)
    page.screenshot(path=path, type="jpeg", quality=85)
    print(path)


if __name__ == "__main__":
    main()
