"""The first-order Taylor model of a network in its parameters."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from overparam.foundations.precision import full_precision
from overparam.models.functional import evaluating
from overparam.models.taylor.derivative import Named, derivative_along, plain_attention


def linearize(model: nn.Module, x: Tensor) -> Callable[[Named | nn.Module], Tensor]:
    """First-order Taylor model of a network at its current parameters θ0, on the inputs x.

    `f_lin(θ) = f_θ0(x) + J_θ0(x)(θ − θ0)`, exact to rounding, in eval mode and without forming J. The callable takes θ
    as named parameters, as a state dict (whose buffers are ignored: they stay those of now) or as a module with the
    same parameters, and returns outputs (N, C), as the model does. θ0, the buffers and x are copied: training the
    model later changes nothing, but its modules are not and must stay. The result can be differentiated in θ.

    Raises:
        ValueError: a weight of the model, of θ or an input is not finite, or names or shapes of θ are not the model's.
        TypeError: the model returns no tensor, or θ is neither a mapping nor a module.

    Source: Lee, Xiao, Schoenholz, Bahri, Novak, Sohl-Dickstein & Pennington (2019), equation 5.

    >>> model = nn.Linear(2, 1)
    >>> f_lin = linearize(model, torch.tensor([[1.0, 2.0]]))
    >>> theta = {"weight": torch.tensor([[3.0, 4.0]]), "bias": torch.tensor([5.0])}
    >>> round(float(f_lin(theta)), 4)  # 1·3 + 2·4 + 5
    16.0
    """
    with torch.inference_mode(False), torch.no_grad():
        theta0 = {name: value.detach().clone() for name, value in model.named_parameters()}
        buffers = {name: value.detach().clone() for name, value in model.named_buffers()}
        x = x.detach().clone()
    if not theta0:
        raise ValueError("the model has no parameters: there is nothing to linearize it in")
    _refuse_non_finite({"x": x, **theta0, **buffers})
    aliases = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    known = (aliases | model.state_dict().keys() | buffers.keys()) - theta0.keys()

    def function(theta: Named) -> Tensor:
        # Buffers are copied anew: a forward pass that counts in one must not count in ours.
        return _tensor(functional_call(model, {**{n: b.clone() for n, b in buffers.items()}, **theta}, (x,)))

    with _settled(model, differentiable=False):
        base = function(theta0)

    def taylor(theta: Named | nn.Module) -> Tensor:
        with _settled(model, differentiable=torch.is_grad_enabled()):
            _, slope = derivative_along(function, theta0, _change(theta, theta0, known))
            return base + slope

    return taylor


@contextmanager
def _settled(model: nn.Module, differentiable: bool) -> Iterator[None]:
    grad = torch.set_grad_enabled
    # Leaving inference mode turns gradients on, so that they are set after it.
    with torch.inference_mode(False), grad(differentiable), full_precision(), evaluating(model), plain_attention():
        yield


def _change(theta: Named | nn.Module, theta0: Named, ignored: set[str]) -> dict[str, Tensor]:
    """θ − θ0 by name.

    Raises:
        ValueError: θ has other names or shapes than θ0, or is not finite.
    """
    if not isinstance(theta, Mapping | nn.Module):
        raise TypeError(f"θ is a {type(theta).__name__}; allowed: named parameters, a state dict or a module")
    given = dict(theta.named_parameters()) if isinstance(theta, nn.Module) else theta
    if missing := [name for name in theta0 if name not in given]:
        raise ValueError(f'θ has no parameter "{missing[0]}"; it needs all of: {", ".join(theta0)}')
    if unknown := [name for name in given if name not in theta0 and name not in ignored]:
        raise ValueError(f'θ has a parameter "{unknown[0]}", which the model has not; allowed: {", ".join(theta0)}')
    for name, value in theta0.items():
        if given[name].shape != value.shape:
            shapes = f"{tuple(given[name].shape)}, but in the model {tuple(value.shape)}"
            raise ValueError(f'"{name}" has shape {shapes}; give parameters of the same architecture')
    _refuse_non_finite({name: given[name] for name in theta0})
    return {name: given[name].to(value) - value for name, value in theta0.items()}


def _refuse_non_finite(tensors: Named) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            count = int((~value.isfinite()).sum())
            raise ValueError(f"{name} holds {count} values that are not finite; a Taylor model needs finite numbers")


def _tensor(outputs: object) -> Tensor:
    if not isinstance(outputs, Tensor):
        raise TypeError(f"the model returns a {type(outputs).__name__}; wrap it so that it returns one tensor")
    return outputs
