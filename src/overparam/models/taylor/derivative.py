"""The exact derivative of a function of named parameters along a direction, `J Δ`, without forming J."""

import warnings
from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor

Named = Mapping[str, Tensor]
Function = Callable[[Named], Tensor]


def derivative_along(function: Function, theta0: Named, change: Named) -> tuple[Tensor, Tensor]:
    """Value `f(θ0)` and derivative `J(θ0) Δ`, both exact; the derivative can be differentiated in Δ.

    By forward mode. Where an operation has no forward derivative, J Δ is the gradient in u of `Δ · Jᵀu`, which is
    linear in u (two backward passes).

    Raises:
        ValueError: an operation has neither derivative.

    >>> f = lambda theta: theta["w"] ** 2
    >>> derivative_along(f, {"w": torch.tensor([3.0])}, {"w": torch.tensor([0.5])})
    (tensor([9.]), tensor([3.]))
    """
    load_forward_mode()
    try:
        found: tuple[Tensor, Tensor] = torch.func.jvp(function, (dict(theta0),), (dict(change),))  # type: ignore[assignment]
    except (NotImplementedError, RuntimeError):  # if the cause is another one, the second way raises it again
        return backward_along(function, theta0, change)
    return found


def backward_along(function: Function, theta0: Named, change: Named) -> tuple[Tensor, Tensor]:
    """The same by reverse mode alone, with words for what it lacks."""
    try:
        return twice_backward(function, theta0, change)
    except (NotImplementedError, RuntimeError) as error:
        said = str(error).splitlines()[0]
        if "derivative for" not in said and "differentiate twice" not in said:
            raise
        raise ValueError(
            f"an operation has neither a forward derivative nor a second backward one: J Δ cannot be had ({said})"
        ) from error


@cache
def load_forward_mode() -> None:
    """PyTorch compiles what forward mode needs on its first use, and warns of its own compiler."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.sin, (torch.zeros(1, device="cpu"),), (torch.ones(1, device="cpu"),))


def twice_backward(function: Function, theta0: Named, change: Named) -> tuple[Tensor, Tensor]:
    """What `derivative_along` returns, by reverse mode alone."""
    differentiable = torch.is_grad_enabled() and any(each.requires_grad for each in change.values())
    with torch.enable_grad():
        leaves = {name: value.detach().requires_grad_() for name, value in theta0.items()}
        outputs = function(leaves)
        cotangent = torch.zeros_like(outputs).requires_grad_()
        if not outputs.requires_grad:
            return outputs, torch.zeros_like(outputs)
        pulled = torch.autograd.grad(outputs, tuple(leaves.values()), cotangent, create_graph=True, allow_unused=True)
        pairs = zip(pulled, leaves, strict=True)
        terms = [(part * change[name]).sum() for part, name in pairs if part is not None and part.requires_grad]
        if not terms:
            return outputs.detach(), torch.zeros_like(outputs)
        (slope,) = torch.autograd.grad(torch.stack(terms).sum(), cotangent, create_graph=differentiable)
    return outputs.detach(), slope
