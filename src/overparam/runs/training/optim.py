"""Optimizer spec → PyTorch optimizer: the one constructor that every run uses."""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from overparam.specs.optimizers import OptimizerSpec

SETTINGS = ("momentum", "weight_decay", "dampening", "nesterov", "maximize")


def build_optimizer(spec: OptimizerSpec, model: nn.Module) -> torch.optim.Optimizer:
    """PyTorch's fused implementation where there is one: one kernel call per step, on CPU and on CUDA."""
    make: Callable[..., torch.optim.Optimizer] = getattr(torch.optim, spec.torch_name)
    fused = {"fused": True} if "fused" in inspect.signature(make).parameters else {}
    return make(list(model.parameters()), **fused, **spec.settings)


def update_of(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """`optimizer.step`; of SGD under way, the same kernel call without the bookkeeping around it."""
    if not isinstance(optimizer, torch.optim.SGD):
        return optimizer.step
    (group,) = optimizer.param_groups
    parameters, settings = group["params"], {name: group[name] for name in SETTINGS}
    values, buffers = [p.detach() for p in parameters], _buffers(optimizer)

    def update() -> None:
        nonlocal buffers
        grads = [p.grad for p in parameters]
        if buffers is None or any(g is None for g in grads):
            optimizer.step()
            buffers = _buffers(optimizer)
        else:
            torch._fused_sgd_(values, grads, buffers, lr=group["lr"], is_first_step=False, **settings)

    return update


def _buffers(optimizer: torch.optim.SGD) -> list[Tensor] | None:
    """Momentum by parameter, as the kernel wants it: nothing without momentum; None while some has yet to be made."""
    (group,) = optimizer.param_groups
    if not group["momentum"]:
        return []
    found = [optimizer.state.get(p, {}).get("momentum_buffer") for p in group["params"]]
    return found if all(b is not None for b in found) else None


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
