"""The optimizer of YOLOX: SGD with Nesterov momentum, and no decay where it does not belong."""

import torch
from torch import nn


def sgd(
    model: nn.Module, *, rate: float, momentum: float = 0.9, weight_decay: float = 5e-4
) -> torch.optim.SGD:
    """SGD over a model's parameters; biases and norms, everything of one axis, do not decay."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=True, foreach=True)
