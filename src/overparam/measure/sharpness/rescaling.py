"""Rescalings of a network that leave its function as it is (Dinh et al. 2017).

A measure of flatness that such a rescaling moves says something about the weights and not about the function.
"""

import copy
import math
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Data, Problem, any_loss
from overparam.models.borrowed import unwrapped

AnyModule = TypeVar("AnyModule", bound=nn.Module)
NamedModule = tuple[str, nn.Module]
ABSORBING = (nn.Linear, _ConvNd)
SCALABLE = (*ABSORBING, _BatchNorm)
TOLERANCE = {torch.float64: 1e-8}  # change of the outputs, relative to the largest one
TOLERANCE_ELSE = 1e-4


def rescaled(model: AnyModule, data: Data, *, factor: float = 4.0) -> tuple[AnyModule, list[tuple[str, str]]]:
    """A copy with the same outputs and other weights, and the names of the pairs of modules that were scaled.

    For each Linear, Conv or BatchNorm module, in the order of the model, weight and bias are multiplied by a and the
    weight of the Linear or Conv module that comes next by 1/a. A pair is kept if the outputs in eval mode on the data
    stay within 1e-4 of the largest one (1e-8 in float64), and do not when the first module alone is scaled: two modules
    that take no part in the function are no pair. Pairs are tried one after the other; a is `factor` for every other
    kept pair and 1/factor for those between, so that the factors of a chain do not cancel. With a power of two every
    product is exact, and measures that do not depend on the scale keep their digits. The list is empty if nothing can
    be scaled, as with tanh; weights that a parametrization computes are left alone.

    Raises:
        ValueError: the factor is not positive or is 1, or the model or data cannot be measured (see `opened`).

    >>> model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
    >>> _ = model[0].weight.data.fill_(1.0)
    >>> rescaled(model, (torch.ones(4, 1), torch.ones(4, 1)))[1]
    [('0', '2')]
    """
    refuse_factor(factor)
    twin = _copied(model)
    own = dict(unwrapped(twin).named_parameters())
    pairs: list[tuple[str, str]] = []
    with opened(twin, any_loss, data, params=[*own], unused="hold", gradients=False) as problem:
        names = {id(value): name for name, value in own.items()}
        weights = {**problem.fixed, **problem.parts()}
        before = _outputs(problem, weights)
        for first, second in _candidates(problem.model):
            a = factor if len(pairs) % 2 == 0 else 1.0 / factor
            scaled, absorbing = [names[id(value)] for value in _own(first[1]).values()], names[id(second[1].weight)]
            alone = weights | {name: a * weights[name] for name in scaled}
            both = alone | {absorbing: alone[absorbing] / a}
            if not _same(before, _outputs(problem, alone)) and _same(before, _outputs(problem, both)):
                weights = both
                pairs.append((first[0], second[0]))
    for name, value in own.items():
        value.data.copy_(weights[name])
    return twin, pairs


def _copied(model: AnyModule) -> AnyModule:
    """A copy; of a weight that a hook computes before every pass, the values."""
    attributes = [value for module in model.modules() for value in vars(module).values()]
    computed = [value for value in attributes if isinstance(value, Tensor) and not value.is_leaf]
    return copy.deepcopy(model, {id(value): value.detach().clone() for value in computed})


def refuse_factor(factor: float) -> None:
    if not (math.isfinite(factor) and factor > 0.0 and factor != 1.0):
        raise ValueError(f"factor = {factor}; allowed: a positive number other than 1")


def _candidates(model: nn.Module) -> Iterator[tuple[NamedModule, NamedModule]]:
    """Each module that can be scaled, with the next one that can absorb the factor."""
    modules = [(name, m) for name, m in model.named_modules() if isinstance(m, SCALABLE) and "weight" in _own(m)]
    for i, first in enumerate(modules):
        second = next((each for each in modules[i + 1 :] if isinstance(each[1], ABSORBING)), None)
        if second is not None and first[1].weight is not second[1].weight:
            yield first, second


def _own(module: nn.Module) -> dict[str, Tensor]:
    """Weight and bias that are parameters: neither left out nor computed from others."""
    return {name: p for name, p in module._parameters.items() if name in ("weight", "bias") and p is not None}


def _outputs(problem: Problem, weights: dict[str, Tensor]) -> list[Tensor]:
    return [problem.outputs(weights, x).detach() for x, _ in problem.chunks]


def _same(before: list[Tensor], after: list[Tensor]) -> bool:
    tolerance = TOLERANCE.get(before[0].dtype, TOLERANCE_ELSE)
    largest = max(float(each.abs().max()) for each in before)
    return all(float((b - a).abs().max()) <= tolerance * largest for b, a in zip(before, after, strict=True))
