"""Metadata of a distribution: the README with absolute links, and the addresses.

PyPI shows the README without the repository beside it, where relative links lead nowhere. The
address of the repository has one place, `repository` under `[tool.hatch.metadata.hooks.custom]` in
pyproject.toml. While it is empty, links become plain text and pictures their descriptions.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

# [text](target), or ![text](target), with a target in the repository.
LINK = re.compile(r"(!?)\[((?:[^\[\]]|!?\[[^\]]*\](?:\([^)]*\))?)*)\]\((?!\w+:|#)([^)\s]+)\)")


class Metadata(MetadataHookInterface):
    """Fills in `readme` and `urls`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill them in; `config` is the hook's table in pyproject.toml."""
        repository = self.config.get("repository", "").rstrip("/")
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": absolute(text, repository, str(self.config.get("branch", "main"))),
        }
        metadata["urls"] = addresses(repository, str(self.config.get("branch", "main")))


def absolute(text: str, repository: str, branch: str) -> str:
    """Markdown whose links lead to the repository's files, or nowhere without a repository."""

    def replaced(match: re.Match[str]) -> str:
        mark, label, target = match.groups()
        label = LINK.sub(replaced, label)
        if not repository:
            return f"({label})" if mark else label
        return f"{mark}[{label}]({repository}/{'raw' if mark else 'blob'}/{branch}/{target})"

    return LINK.sub(replaced, text)


def addresses(repository: str, branch: str) -> dict[str, str]:
    """The addresses of a distribution, by their names on PyPI."""
    article = {"The YOLOX article": "https://arxiv.org/abs/2107.08430"}
    if not repository:
        return article
    files = f"{repository}/blob/{branch}"
    return {
        "Repository": repository,
        "Documentation": f"{files}/docs/start.md",
        "Changelog": f"{files}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
        "Security": f"{files}/SECURITY.md",
        **article,
    }
