"""`yolox-serve --install-completion`: complete commands and options in a shell."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from service.console import print_error
from yolox_serve.app import console_app


def run(
    *,
    shell: Annotated[
        Literal["bash", "zsh", "fish", "powershell"] | None,
        Parameter(help="The shell (unset: the one that this runs in)"),
    ] = None,
    output: Annotated[
        Path | None, Parameter(metavar="FILE", help="File to write (unset: the shell's own place)")
    ] = None,
) -> int:
    """Teach your shell to complete commands and options.

    Example: `yolox-serve --install-completion --shell bash`
    """
    try:
        written = console_app().install_completion(shell=shell, output=output)
    except (OSError, ValueError, RuntimeError) as error:
        print_error(f"{error}; name the shell with --shell, or a file with --output")
        return 1
    sys.stdout.write(f"{written}\n")
    sys.stderr.write("new shells complete `yolox-serve`\n")
    return 0
