"""How far training has moved the parameters."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from overparam.measure.problem.refusals import refuse_non_finite

Parameters = Mapping[str, Tensor] | nn.Module


@dataclass(frozen=True)
class Movement:
    """`absolute` is `‖θ_T − θ_0‖`, `relative` that over `‖θ_0‖`, `per_parameter` the latter of each tensor by name.

    A tensor that starts at zero has moved by inf, or by 0 if it is still there. `float(…)` is `relative`.
    """

    relative: float
    absolute: float
    per_parameter: dict[str, float] = field(repr=False)

    def __float__(self) -> float:
        return self.relative


def parameter_movement(init: Parameters, final: Parameters) -> Movement:
    """Relative and absolute distance of the parameters from where they started, by Euclidean norms.

    `‖θ_T − θ_0‖/‖θ_0‖` over all parameters together and for each; sums run in float64. Of modules all parameters count,
    trainable or not. In the standard parameterization the relative distance falls with the width by `‖θ_0‖` alone: it
    is no sign of lazy training there. Source: Chizat, Oyallon & Bach (2019).

    Raises:
        ValueError: names or shapes differ, there are no parameters, or they are not real and finite.

    >>> float(parameter_movement({"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([3.0, 5.0])}))  # 1/5
    0.2
    """
    before, after = _named(init), _named(final)
    _refuse_different(before, after)
    for named in (before, after):
        refuse_non_finite(named)
    start = {name: value.detach().cpu().double() for name, value in before.items()}
    apart = {name: _norm(after[name].detach().cpu().double() - value) for name, value in start.items()}
    norms = {name: _norm(value) for name, value in start.items()}
    absolute = math.hypot(*apart.values())
    return Movement(
        _relative(absolute, math.hypot(*norms.values())),
        absolute,
        {name: _relative(apart[name], norms[name]) for name in start},
    )


def _named(parameters: Parameters) -> dict[str, Tensor]:
    return dict(parameters.named_parameters() if isinstance(parameters, nn.Module) else parameters)


def _norm(value: Tensor) -> float:
    return float(torch.linalg.vector_norm(value))


def _relative(distance: float, norm: float) -> float:
    if norm > 0.0:
        return distance / norm
    return math.inf if distance > 0.0 else 0.0


def _refuse_different(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    if not before:
        raise ValueError("there are no parameters to compare; give mappings from names to tensors, or two modules")
    if only := sorted(before.keys() ^ after.keys()):
        raise ValueError(f"only one of init and final has {', '.join(only)}; give the same parameters, twice")
    for name, value in before.items():
        for dtype in (value.dtype, after[name].dtype):
            if not dtype.is_floating_point:
                raise ValueError(f"{name} is {dtype}; allowed: parameters in real floating point, no counters or masks")
        if value.shape != after[name].shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)} before and {tuple(after[name].shape)} after")
