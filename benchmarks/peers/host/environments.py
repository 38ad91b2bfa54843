"""A virtual environment for each peer, made once, and again when its requirements change."""

import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Final

from model_export.errors import ModelExportError

REQUIREMENTS: Final = Path(__file__).parents[1] / "requirements"
STAMP: Final = "installed.txt"


def ensure_environment(name: str, folder: Path, say: Callable[[str], None]) -> Path:
    """The interpreter of a peer's environment, which is made or renewed if necessary.

    Args:
        name: Name of a requirement file, without `.txt`.
        folder: The folder of all environments.
        say: Called before something takes long.

    Raises:
        ModelExportError: The packages cannot be installed.
    """
    target = folder / name
    interpreter = target / "bin" / "python"
    wanted = (REQUIREMENTS / f"{name}.txt").read_text()
    stamp = target / STAMP
    if interpreter.exists() and stamp.exists() and stamp.read_text() == wanted:
        return interpreter
    say(f"installing {name} into {target}")
    venv.create(target, with_pip=True, clear=True)
    _install(interpreter, REQUIREMENTS / f"{name}.txt")
    stamp.write_text(wanted)
    return interpreter


def pins(name: str) -> tuple[str, ...]:
    """The packages of a requirement file, each as `name==version`."""
    return tuple((REQUIREMENTS / f"{name}.txt").read_text().split())


def _install(interpreter: Path, requirements: Path) -> None:
    command = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["-r", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise ModelExportError(
            f"{requirements.name} cannot be installed for Python "
            f"{sys.version_info.major}.{sys.version_info.minor}:\n{done.stderr.strip()[-2000:]}"
        )
