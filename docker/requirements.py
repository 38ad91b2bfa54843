#!/usr/bin/env python3
"""Print the requirements of the project and of the named extras, one per line.

The images use it to install the dependencies in a layer of their own, before copying the source.
"""

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: str, extras: list[str]) -> list[str]:
    """List the dependencies in the text of a pyproject.toml, then those of its `extras`."""
    project = tomllib.loads(pyproject)["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(line for extra in extras for line in optional[extra])]


if __name__ == "__main__":
    text = Path("pyproject.toml").read_text(encoding="utf-8")
    sys.stdout.write("\n".join(requirements(text, sys.argv[1:])) + "\n")
