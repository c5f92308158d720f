"""Optimizer spec → PyTorch optimizer: the one constructor that every run uses."""

from typing import assert_never

import torch
from torch import nn

from overparam.specs.run import SGD, Adam


def build_optimizer(spec: SGD | Adam, model: nn.Module) -> torch.optim.Optimizer:
    """PyTorch's fused implementations: one kernel call per step, on CPU and on CUDA."""
    parameters = list(model.parameters())
    match spec:
        case SGD():
            return torch.optim.SGD(
                parameters, lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay, fused=True
            )
        case Adam():
            return torch.optim.Adam(parameters, lr=spec.lr, betas=spec.betas, fused=True)
        case _:
            assert_never(spec)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
