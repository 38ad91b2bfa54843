"""Starting the processes of a training as `torchrun` does, with one line if one of them fails."""

import logging
import os
import signal
from collections.abc import Iterable, Sequence
from typing import Final

from torch.distributed import DistError
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous.api import RendezvousError

from model_export.errors import InterruptedRunError, ModelExportError
from model_export.training.parallel import OTHER_ENDED

# Exit codes of processes that a signal stopped, to the signal; torch sends SIGTERM to the others.
STOPPED: Final = {
    128 + signal.SIGINT: signal.SIGINT,
    128 + signal.SIGTERM: signal.SIGTERM,
    -signal.SIGTERM: signal.SIGTERM,
}


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
        raise reason(error.failures.values()) from error
    except SignalException as error:
        raise InterruptedRunError("", error.sigval) from error
    except (RendezvousError, DistError) as error:
        raise ModelExportError(f"the machines did not find one another: {error}") from error


def reason(processes: Iterable[ProcessFailure]) -> ModelExportError:
    """The error of the process that failed first; others failed because it was gone."""
    failures = sorted(processes, key=lambda each: each.timestamp)
    told = [text for failure in failures if (text := _told(failure))]
    if causes := [text for text in told if text != OTHER_ENDED]:
        return ModelExportError(causes[0])
    for failure in failures:
        if not _told(failure) and failure.exitcode not in STOPPED:
            where = f"process {failure.local_rank} of this machine"
            return ModelExportError(f"{where} {_how(failure.exitcode)}")
    if told:
        return ModelExportError(told[0])
    return InterruptedRunError("", STOPPED[failures[0].exitcode])


def _how(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    return f"was killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")


def _told(failure: ProcessFailure) -> str | None:
    """The line that the process left, if it did."""
    content = failure.error_file_data.get("message")
    return content.get("message") if isinstance(content, dict) else None
