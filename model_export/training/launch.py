"""Starting the processes of a training as `torchrun` does, with one line if one of them fails."""

import logging
import os
import signal
from collections.abc import Sequence
from typing import Final

from torch.distributed import DistError
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous.api import RendezvousError

from model_export.errors import InterruptedRunError, ModelExportError
from model_export.training.parallel import OTHER_ENDED

SHELL_SIGNAL: Final = 128


def launch(options: Sequence[str], command: Sequence[str]) -> None:
    """Run a command of `model_export` in several processes, and wait for them.

    Args:
        options: Those of `torchrun`.
        command: The command and its arguments.

    Raises:
        ModelExportError: A process failed, here or on another machine; the message is its own.
        InterruptedRunError: A signal ended them; they have told how to go on.
    """
    # torch logs a page about each process that fails.
    logging.disable(logging.CRITICAL)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    arguments = torchrun.parse_args(  # type: ignore[no-untyped-call]
        [*options, "-m", "model_export", *command]
    )
    try:
        torchrun.run(arguments)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        raise _reason(error) from error
    except SignalException as error:
        raise InterruptedRunError("", error.sigval) from error
    except (RendezvousError, DistError) as error:
        raise ModelExportError(f"the machines did not find one another: {error}") from error


def _reason(error: ChildFailedError) -> ModelExportError:
    """The error of the process that failed first; others failed because it was gone."""
    failures = sorted(error.failures.values(), key=lambda each: each.timestamp)
    told = [text for failure in failures if (text := _told(failure))]
    causes = [text for text in told if text != OTHER_ENDED]
    if causes or told:
        return ModelExportError((causes or told)[0])
    first = failures[0]
    stopped = first.exitcode - SHELL_SIGNAL
    if stopped in (signal.SIGINT, signal.SIGTERM):
        return InterruptedRunError("", stopped)
    if first.exitcode < 0:
        name = signal.Signals(-first.exitcode).name
        how = f"was killed by {name}" + (
            ", perhaps for want of memory" if name == "SIGKILL" else ""
        )
    else:
        how = f"ended with exit code {first.exitcode}"
    return ModelExportError(f"process {first.local_rank} of this machine {how}")


def _told(failure: ProcessFailure) -> str | None:
    """The line that the process left, if it did."""
    content = failure.error_file_data.get("message")
    return content.get("message") if isinstance(content, dict) else None
