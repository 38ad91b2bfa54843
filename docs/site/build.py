"""Build the documentation as a site: `make docs` writes it to build/site, without internet.

Every Markdown page of the project keeps its path, so that a link that works in the repository works
on the site. Files that a page links to are copied beside it. Mermaid diagrams become pictures,
which need no script. Zensical then builds the pages and refuses links to pages and headings that do
not exist; `check.py` looks at what came out.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import mermaidx
import yaml
from check import problems

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
PAGES = BUILD / "pages"
SITE = BUILD / "site"
DIAGRAMS = BUILD / "diagrams"

# Where pages are; other folders may hold virtual environments and the Markdown of packages.
FOLDERS = "benchmarks deploy docker docs examples model_export service tests"
PATTERNS = ("*.md", *(f"{folder}/**/*.md" for folder in FOLDERS.split()))
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")
FOLDER_LINK = re.compile(r"\[([^\[\]]*)\]\((?!\w+:)([^)#\s]+/)\)")
MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# An entry of the navigation: a title with a page, or with entries below it.
Entry = dict[str, "str | list[Entry]"]


def main() -> int:
    """Build the site, and say what is wrong with it."""
    gather()
    configuration = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    configuration["nav"] = list(existing(configuration["nav"]))
    (BUILD / "mkdocs.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    shutil.rmtree(SITE, ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    built = subprocess.run(command, cwd=BUILD, check=False, capture_output=True, text=True)
    if built.returncode:
        sys.stderr.write(built.stdout + built.stderr)
        return built.returncode
    found = problems(SITE)
    sys.stderr.writelines(f"error: {each}\n" for each in found)
    if not found:
        print(f"{SITE.relative_to(ROOT)}/index.html: {len(list(SITE.rglob('*.html')))} pages")
    return bool(found)


def gather() -> None:
    """Copy all pages, and the files that they link to, to PAGES."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for pattern in PATTERNS:
        for path in ROOT.glob(pattern):
            page = PAGES / path.relative_to(ROOT)
            page.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text(encoding="utf-8")
            copy_linked(path, text)
            text = MERMAID.sub(partial(picture, page), text)
            page.write_text(FOLDER_LINK.sub(partial(link_of_folder, path), text), "utf-8")


def copy_linked(path: Path, text: str) -> None:
    """Copy the files that a page links to, if they are no pages themselves."""
    for target in LINK.findall(text):
        file = (path.parent / unquote(target)).resolve()
        if file.suffix != ".md" and file.is_file() and file.is_relative_to(ROOT):
            copy = PAGES / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)


def link_of_folder(path: Path, link: re.Match[str]) -> str:
    """A page's link to a folder: it leads to the README there, or becomes plain text."""
    text, folder = link.groups()
    has_readme = (path.parent / unquote(folder) / "README.md").is_file()
    return f"[{text}]({folder}README.md)" if has_readme else text


def picture(page: Path, fence: re.Match[str]) -> str:
    """Draw a Mermaid diagram beside its page; gives the Markdown that shows it."""
    diagram = fence[1]
    name = f"{hashlib.sha256(diagram.encode()).hexdigest()[:16]}.svg"
    drawn = DIAGRAMS / name
    if not drawn.exists():
        DIAGRAMS.mkdir(parents=True, exist_ok=True)
        mermaidx.render(diagram).save(str(drawn))
    shutil.copy(drawn, page.parent / name)
    return f'![Diagram]({name}){{ style="max-height: 40rem" }}'


def existing(entries: list[Entry]) -> Iterator[Entry]:
    """The navigation without pages that do not exist, and without empty sections."""
    for entry in entries:
        ((title, content),) = entry.items()
        if isinstance(content, str):
            if (PAGES / content).is_file():
                yield {title: content}
        elif below := list(existing(content)):
            yield {title: below}


if __name__ == "__main__":
    sys.exit(main())
