"""Whether a built site hangs together.

Every link leads somewhere, and nothing is loaded from elsewhere.
"""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

# A browser loads these by itself; it follows the links of `a` only on a click.
LOADED = {("img", "src"), ("script", "src"), ("link", "href"), ("source", "src"), ("iframe", "src")}


@dataclass
class Page(HTMLParser):
    """The anchors of a page, and what it refers to as (tag, attribute, URL)."""

    anchors: set[str] = field(default_factory=set)
    references: list[tuple[str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of one element."""
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            if name in ("href", "src") and value:
                self.references.append((tag, name, value))


def problems(site: Path) -> list[str]:
    """List the faults of a site, one line each; empty if there are none."""
    pages = {path.resolve(): read(path) for path in sorted(site.rglob("*.html"))}
    return [
        f"{path.relative_to(site.resolve())}: {url}: {fault}"
        for path, page in pages.items()
        for tag, attribute, url in page.references
        if (fault := fault_of(path, pages, (tag, attribute), url))
    ]


def read(path: Path) -> Page:
    """Parse one page."""
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def fault_of(path: Path, pages: dict[Path, Page], element: tuple[str, str], url: str) -> str | None:
    """Name the fault of one reference of a page, if it has any."""
    parts = urlsplit(url)
    if parts.scheme or parts.netloc:
        return fault_outside(parts, element)
    # Zensical's page for paths that do not exist has absolute links.
    if path.name == "404.html":
        return None
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return "does not exist"
    if parts.fragment and target in pages and parts.fragment not in pages[target].anchors:
        return "has no such heading"
    return None


def fault_outside(parts: SplitResult, element: tuple[str, str]) -> str | None:
    """Name the fault of a reference to another site; no request is sent."""
    if parts.scheme in ("data", "mailto"):
        return None
    if element in LOADED:
        return "is loaded from elsewhere"
    return None if parts.scheme in ("http", "https") and parts.hostname else "is no address"
