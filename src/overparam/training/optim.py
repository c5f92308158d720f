"""Optimizer spec → PyTorch optimizer: the one constructor that every run uses."""

from collections.abc import Callable
from typing import assert_never

import torch
from torch import nn
from torch.optim.sgd import sgd

from overparam.specs.run import SGD, Adam

SETTINGS = ("lr", "momentum", "weight_decay", "dampening", "nesterov", "maximize")


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


def update_of(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """`optimizer.step`; of SGD under way, the same kernel call without the bookkeeping around it."""
    if not isinstance(optimizer, torch.optim.SGD):
        return optimizer.step
    (group,) = optimizer.param_groups
    parameters, momentum = group["params"], group["momentum"]

    def update() -> None:
        grads = [p.grad for p in parameters]
        buffers = [optimizer.state.get(p, {}).get("momentum_buffer") for p in parameters]
        if any(g is None for g in grads) or (momentum and any(b is None for b in buffers)):
            optimizer.step()
            return
        settings = {name: group[name] for name in SETTINGS}
        with torch.no_grad():
            sgd(parameters, grads, buffers, fused=True, **settings)

    return update


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
