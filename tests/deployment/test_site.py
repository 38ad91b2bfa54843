"""The check of the built documentation, and the addresses that a distribution carries."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support.project import ROOT


def loaded(path: Path) -> ModuleType:
    """A module that belongs to no package."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    specification.loader.exec_module(module)
    return module


check = loaded(ROOT / "docs" / "site" / "check.py")
hatch_build = loaded(ROOT / "hatch_build.py")


def problems(folder: Path, body: str) -> list[str]:
    (folder / "other").mkdir(exist_ok=True)
    (folder / "other" / "index.html").write_text('<h1 id="top">Other</h1>')
    (folder / "page.html").write_text(f"<h1 id='here'>Page</h1>{body}")
    found: list[str] = check.problems(folder)
    return found


@pytest.mark.parametrize(
    "body",
    [
        '<a href="other/">',
        '<a href="other/index.html#top">',
        '<a href="#here">',
        '<a href="https://example.org/page">',
        '<img src="data:image/png;base64,AA==">',
    ],
)
def test_links_that_lead_somewhere_pass(tmp_path: Path, body: str) -> None:
    assert problems(tmp_path, body) == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="absent.html">', "does not exist"),
        ('<img src="absent.png">', "does not exist"),
        ('<a href="other/#absent">', "has no such heading"),
        ('<a href="#absent">', "has no such heading"),
        ('<script src="https://example.org/x.js"></script>', "is loaded from elsewhere"),
        ('<link href="//example.org/font.css">', "is loaded from elsewhere"),
        ('<a href="https:///path">', "is no address"),
    ],
)
def test_what_is_wrong_with_a_link_is_said(tmp_path: Path, body: str, fault: str) -> None:
    (found,) = problems(tmp_path, body)
    assert found.startswith("page.html: ")
    assert found.endswith(fault)


LINKS = "[![A page](docs/page.jpg)](docs/page.md), [here](#here), [there](https://example.org)"


def test_links_of_a_readme_become_absolute() -> None:
    shown = hatch_build.absolute(LINKS, "https://example.org/a/b", "main")
    files = "https://example.org/a/b"
    assert shown == (
        f"[![A page]({files}/raw/main/docs/page.jpg)]({files}/blob/main/docs/page.md), "
        "[here](#here), [there](https://example.org)"
    )


def test_without_an_address_links_become_text() -> None:
    shown = hatch_build.absolute(LINKS, "", "main")
    assert shown == "(A page), [here](#here), [there](https://example.org)"


def test_the_readme_of_a_distribution_has_no_relative_link() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for repository in ("", "https://example.org/a/b"):
        assert not hatch_build.LINK.search(hatch_build.absolute(readme, repository, "main"))


def test_addresses_follow_from_the_one_of_the_repository() -> None:
    assert list(hatch_build.addresses("", "main")) == ["The YOLOX article"]
    addresses = hatch_build.addresses("https://example.org/a/b", "main")
    assert addresses["Repository"] == "https://example.org/a/b"
    for name in ("Documentation", "Changelog", "Security"):
        path = addresses[name].partition("/blob/main/")[2]
        assert (ROOT / path).is_file()
