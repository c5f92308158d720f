"""The first-order Taylor model of a network in its parameters."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from overparam.measure.problem.opening import opened
from overparam.measure.problem.padding import padding_rows
from overparam.measure.problem.problem import any_loss
from overparam.measure.problem.refusals import refuse_non_finite
from overparam.models.borrowed import borrowed, unwrapped
from overparam.models.reach import Unused
from overparam.models.taylor.derivative import Named, backward_along, derivative_along


def linearize(model: nn.Module, x: Tensor, *, unused: Unused = "refuse") -> Callable[[Named | nn.Module], Tensor]:
    """First-order Taylor model of a network at its current parameters θ0, on the inputs x.

    `f_lin(θ) = f_θ0(x) + J_θ0(x)(θ − θ0)`, exact to rounding, in eval mode and without forming J. The callable takes θ
    as named parameters, as a state dict (whose buffers are ignored: they stay those of now) or as a module with the
    same parameters, and returns outputs (N, C), as the model does. θ0, the buffers and x are copied: training the
    model later changes nothing, but its modules are not and must stay. The result can be differentiated in θ.

    Raises:
        ValueError: a weight of the model, of θ or an input is not finite, names or shapes of θ are not the
            model's, the model returns no tensor, or no output depends on some of its parameters (see `opened`).

    Source: Lee, Xiao, Schoenholz, Bahri, Novak, Sohl-Dickstein & Pennington (2019), equation 5.

    >>> model = nn.Linear(2, 1)
    >>> f_lin = linearize(model, torch.tensor([[1.0, 2.0]]))
    >>> theta = {"weight": torch.tensor([[3.0, 4.0]]), "bias": torch.tensor([5.0])}
    >>> round(float(f_lin(theta)), 4)  # 1·3 + 2·4 + 5
    16.0
    """
    with torch.no_grad():
        given = x.detach().clone()
    refuse_non_finite({"x": given})
    inside = unwrapped(model)
    data = (given, torch.zeros(len(given), device=given.device))
    with opened(model, any_loss, data, params=_differentiated(inside), unused=unused, chunk=len(given)) as problem:
        problem = replace(problem, order=torch.contiguous_format)
        given = problem.chunks[0][0].contiguous()
        everything = {**problem.fixed, **problem.parts()}
        theta0 = {name: everything[name].clone() for name, _ in inside.named_parameters()}
        ignored = inside.state_dict().keys() | {name for name, _ in inside.named_parameters(remove_duplicate=False)}
        ignored = (ignored | problem.fixed.keys()) - theta0.keys()
        base = problem.outputs(theta0, given)
        # Forward derivatives see rows at `padding_idx`, to which PyTorch gives no gradient.
        along = backward_along if padding_rows(problem) else derivative_along

    def function(theta: Named) -> Tensor:
        buffers = {name: value.clone() for name, value in problem.fixed.items() if name not in theta}
        return problem.outputs({**buffers, **theta}, given)  # a pass that counts in a buffer must not count in ours

    def taylor(theta: Named | nn.Module) -> Tensor:
        differentiable = torch.is_grad_enabled()
        # Leaving inference mode turns gradients on, so that they are set after it.
        with borrowed(model), torch.set_grad_enabled(differentiable):
            _, slope = along(function, theta0, _change(theta, theta0, ignored))
            return base + slope

    return taylor


def _differentiated(model: nn.Module) -> list[str] | None:
    """Those that require a gradient; all, if none does: J needs none of that."""
    named = dict(model.named_parameters())
    if not named:
        raise ValueError("the model has no parameters: there is nothing to linearize it in")
    return None if any(value.requires_grad for value in named.values()) else list(named)


def _change(theta: Named | nn.Module, theta0: Named, ignored: set[str]) -> dict[str, Tensor]:
    """θ − θ0 by name.

    Raises:
        ValueError: θ has other names or shapes than θ0, or is not finite.
    """
    if not isinstance(theta, Mapping | nn.Module):
        raise ValueError(f"θ is a {type(theta).__name__}; allowed: named parameters, a state dict or a module")
    given = dict(unwrapped(theta).named_parameters()) if isinstance(theta, nn.Module) else theta
    if missing := [name for name in theta0 if name not in given]:
        raise ValueError(f'θ has no parameter "{missing[0]}"; it needs all of: {", ".join(theta0)}')
    if unknown := [name for name in given if name not in theta0 and name not in ignored]:
        raise ValueError(f'θ has a parameter "{unknown[0]}", which the model has not; allowed: {", ".join(theta0)}')
    for name, value in theta0.items():
        if given[name].shape != value.shape:
            shapes = f"{tuple(given[name].shape)}, but in the model {tuple(value.shape)}"
            raise ValueError(f'"{name}" has shape {shapes}; give parameters of the same architecture')
    refuse_non_finite({name: given[name] for name in theta0})
    return {name: given[name].to(value) - value for name, value in theta0.items()}
