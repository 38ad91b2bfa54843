"""A real Chromium without a window, driven by Playwright."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
# Even on a busy machine only a fault takes longer.
TIMEOUT_MS = 30_000
UNPACKED = Path(sys.prefix) / "chromium"

# Drops or pastes a file as a person does, which Playwright cannot.
HAND_OVER = """([kind, name, type, content]) => {
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type }));
  const options = { bubbles: true, cancelable: true };
  document.querySelector("#stage").dispatchEvent(kind === "drop"
    ? new DragEvent("drop", { ...options, dataTransfer: data })
    : new ClipboardEvent("paste", { ...options, clipboardData: data }));
}"""


def _executable() -> tuple[str, dict[str, str]]:
    """The path of the machine's Chromium, else of the one that make unpacked, and its variables."""
    for name in NAMES:
        if found := shutil.which(name):
            return found, {}
    unpacked = UNPACKED / "usr" / "lib" / "chromium" / "chromium-headless-shell"
    if not unpacked.is_file():
        pytest.skip("Chromium is not installed, and make could not unpack Debian's package of it")
    libraries = UNPACKED.glob("usr/lib/*-linux-gnu*")
    folders = [str(path) for folder in libraries for path in (folder, folder / "pulseaudio")]
    return str(unpacked), {"LD_LIBRARY_PATH": ":".join(folders)}


@contextlib.contextmanager
def chromium(camera: Path) -> Iterator[Browser]:
    """Chromium, whose camera shows the pictures of an MJPEG file over and over."""
    path, variables = _executable()
    expect.set_options(timeout=TIMEOUT_MS)
    flags = [
        "--disable-gpu",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=flags, env={**os.environ, **variables}
        )
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def page_of(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A page of this address in a browser of its own; errors that nobody expects fail the test.

    The errors are those of scripts, of the page's policy, and of requests to anywhere else.
    """
    faults: list[str] = []
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if _is_fault(line) else None)
    page.on("request", lambda sent: None if _is_own(sent.url, url) else faults.append(sent.url))
    page.goto(url)
    try:
        yield page
    finally:
        context.close()
    assert faults == []


def _is_fault(line: Any) -> bool:
    # Chromium reports answers of 4xx and 5xx, and requests that fail, both of which tests provoke.
    return line.type == "error" and not line.text.startswith("Failed to load resource")


def _is_own(address: str, page: str) -> bool:
    return address.startswith((page.partition("/docs")[0], "blob:", "data:"))
