"""`--batch-size auto`: the largest batch whose training step fits into memory."""

import os
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from model_export.data.pictures import TrainingData
from model_export.memory import amount, available_memory
from model_export.model.yolox import build
from model_export.samples.batch_plan import largest_training_size
from model_export.training.config import Precision, TrainingConfig
from model_export.training.parallel import Team
from model_export.training.step import arithmetic

# The batch of the release, whose learning rate per image is known to hold up to it.
LARGEST: Final = 64
# The share of the free memory that a step may fill: samples are made in it, too.
USABLE: Final = 0.7
# Bytes of a step beside those that autograd keeps: gradients of activations, assignment, workspace.
OVERHEAD: Final = 1.5
# Weights, gradients, momenta and the average.
COPIES: Final = 4
# Batch norms need several values, and images of a batch share what does not grow with it.
PROBE: Final = 2


def with_fitting_batch(
    config: TrainingConfig, data: TrainingData, team: Team, precision: Precision = "auto"
) -> tuple[TrainingConfig, str]:
    """The configuration with the largest batch that fits, at most that of the release.

    Every process has to call this.

    Args:
        config: The configuration; its batch size does not matter.
        data: The data to learn from; a batch has no image twice.
        team: The processes that take part.
        precision: The network's arithmetic.

    Returns:
        The configuration, and a line for a person.
    """
    network = build(config.variant, len(data.class_names), config.head).to(team.device)
    per_image = bytes_per_image(network, config, arithmetic(precision, team.device))
    fixed = COPIES * sum(each.numel() * each.element_size() for each in network.parameters())
    free = _free(team.device)
    fitting = LARGEST if free is None else int((free * USABLE - fixed) / per_image)
    most = min(LARGEST, len(data)) // (team.processes * config.accumulate)
    share = _largest_power(team.smallest(max(1, fitting)), most)
    batch = share * config.accumulate * team.processes
    room = "an unknown amount" if free is None else amount(free)
    line = f"a batch of {batch} images: a step takes {amount(per_image)} for each, of {room} free"
    return replace(config, batch_size=batch), line


def bytes_per_image(network: nn.Module, config: TrainingConfig, dtype: torch.dtype) -> float:
    """The bytes that a step takes for each image of the largest size of the training.

    Args:
        network: On the device to measure on.
        config: The configuration.
        dtype: The type that the network computes in.
    """
    height, width = largest_training_size(
        config.height, config.width, changes=config.augmentation.size_changes
    )
    device = next(network.parameters()).device
    images = torch.zeros(PROBE, 3, height, width, device=device)
    kept: dict[int, int] = {}
    own = {each.data_ptr() for each in network.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    mixed = dtype != torch.float32
    with (
        saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast(device.type, dtype, enabled=mixed),
    ):
        raw = network.train()(images.to(memory_format=torch.channels_last))
    kept[raw.data_ptr()] = raw.numel() * raw.element_size()
    return OVERHEAD * sum(kept.values()) / PROBE


def _free(device: torch.device) -> int | None:
    """The bytes that one process of this machine may take."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = available_memory()
    return free and free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _largest_power(*limits: int) -> int:
    """The largest power of two within the limits, at least 1."""
    return 1 << max(1, min(limits)).bit_length() - 1
