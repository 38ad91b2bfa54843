"""`yolox-serve torchrun`: a training in several processes, on one machine or on several."""

import os
from typing import Annotated

from cyclopts import Parameter

from model_export.commands.reporting import LAUNCHED, command
from model_export.errors import UsageError


@command("torchrun", extra="train")
def run(
    *arguments: Annotated[
        str,
        Parameter(
            allow_leading_hyphen=True,
            help="Options of torch's torchrun, then `train` and its options",
        ),
    ],
) -> None:
    """Train on several GPUs or machines.

    Start a process for each GPU, as torch's own `torchrun` does with the same options, of which
    these are needed: `--nproc-per-node`, the GPUs of this machine; and for several machines
    `--nnodes`, `--node-rank`, `--master-addr` and `--master-port`. If a process fails, all end, and
    one line tells why.

    Example: `yolox-serve torchrun --nproc-per-node 4 train --data coco --output runs/four`
    """
    if "train" not in arguments:
        raise UsageError("this needs `train` and its options, after those of torchrun")
    place = arguments.index("train")
    # Only here, so that `--help` does not wait for torch.
    from model_export.training.launch import launch  # noqa: PLC0415

    os.environ[LAUNCHED] = "1"
    launch(arguments[:place], arguments[place:])
