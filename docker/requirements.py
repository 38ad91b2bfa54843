#!/usr/bin/env python3
"""Print what the project needs, with the named extras, one requirement a line.

With it an image installs the dependencies before the source is copied, in a layer of their own.
"""

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: str, extras: list[str]) -> list[str]:
    """List the dependencies in the text of a pyproject.toml, and those of its `extras`."""
    project = tomllib.loads(pyproject)["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(line for extra in extras for line in optional[extra])]


if __name__ == "__main__":
    text = Path("pyproject.toml").read_text(encoding="utf-8")
    sys.stdout.write("\n".join(requirements(text, sys.argv[1:])) + "\n")
