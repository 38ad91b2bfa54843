"""The path of the project's files, for tests that read them."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
