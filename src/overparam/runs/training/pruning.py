"""Training under a mask: pruned weights get no gradient, and what stayed zero is checked, not assumed."""

import torch
from torch import Tensor, nn

from overparam.models.masks import Mask, prunable, regrown
from overparam.runs.training.gradients import Gradient


class MaskBroken(RuntimeError):
    """A pruned weight is not zero: the run's numbers are not those of the thin network."""


def mask_like(mask: Mask, model: nn.Module) -> Mask:
    """The mask on the model's device.

    Raises:
        MaskBroken: it does not fit the model's weights.
    """
    weights = prunable(dict(model.named_parameters()))
    if mask and {n: m.shape for n, m in mask.items()} != {n: p.shape for n, p in weights.items()}:
        raise MaskBroken(f"the mask covers {', '.join(mask)}, but the network's weights are {', '.join(weights)}")
    return {name: mask[name].to(weights[name].device) for name in weights} if mask else {}


def thinned(gradient: Gradient, model: nn.Module, mask: Mask) -> Gradient:
    """The gradient of the thin network: that of the full one, zero at pruned weights."""
    parameters = dict(model.named_parameters())
    pruned = [parameters[name] for name in mask]
    # In the layout of the parameter (channels-last or not), so that one kernel walks both.
    kept = [torch.empty_like(p, requires_grad=False).copy_(mask[name]) for name, p in zip(mask, pruned, strict=True)]

    def thin(x: Tensor, y: Tensor) -> Tensor:
        loss = gradient(x, y)
        with torch.no_grad():
            for p, where in zip(pruned, kept, strict=True):
                if p.grad is not None:
                    p.grad.mul_(where)
        return loss

    return thin


def refuse_regrown(model: nn.Module, mask: Mask, step: int) -> None:
    """Raise `MaskBroken` if a pruned weight is not zero; a weight that is not finite belongs to a run that diverges."""
    weights = dict(model.named_parameters())
    name = regrown(weights, mask) if mask else None
    if name is not None and bool(torch.isfinite(weights[name]).all()):
        raise MaskBroken(f"step {step}: {name} has a non-zero weight where its mask prunes; nothing of the run is kept")
