"""The curvature of a layer times its own weights."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.estimate import Estimate
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Data, Loss
from overparam.measure.products.operators import CurvatureOperator
from overparam.measure.spectrum.trace import mean_form
from overparam.models.borrowed import unwrapped


def relative_flatness(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    layer: str | None = None,
    probes: int = 30,
    generator: torch.Generator | None = None,
) -> Estimate:
    """`κ(W) = Σ_{s,s'} ⟨w_s, w_s'⟩ tr(H_{s,s'})` of one weight with rows w_s (Petzka et al. 2021); large is sharp.

    `H_{s,s'} = ∂²L/∂w_s∂w_s'`. The mean of `vᵀHv` over `v = (Wg) zᵀ` with independent Rademacher g and z of the length
    of a row, with a 95 % interval as for `hessian_trace`. `layer` names a parameter, or a module by its `weight`;
    `None` is the last parameter with two dimensions or more. Weights with more than two are flattened behind the first.

    Raises:
        ValueError: `layer` names no such weight, `probes` is below 2, or the model, loss or data cannot be measured.

    >>> model = nn.Linear(1, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[3.0], [4.0]]))
    >>> x = torch.tensor([[1.0], [3.0]])  # H = 5·1, κ = ‖W‖²·5
    >>> round(relative_flatness(model, "mse", (x, torch.zeros(2, 2))).value, 3)
    125.0
    """
    if probes < 2:
        raise ValueError(f"probes = {probes}; allowed: an integer ≥ 2, so that there is an interval")
    generator = generator or torch_generator(0, "flatness")
    with opened(model, loss, data, params=[chosen_weight(model, layer)]) as problem:
        operator = CurvatureOperator(problem)
        weight = problem.theta.reshape(problem.layout.shapes[0]).flatten(1)
        found = mean_form(operator, probes, partial(_weighted_probes, weight, generator=generator))
        return replace(found, fallback=operator.fallback)


def chosen_weight(model: nn.Module, layer: str | None) -> str:
    """Name of the parameter that `layer` means, see `relative_flatness`."""
    weights = [name for name, value in unwrapped(model).named_parameters() if value.ndim >= 2]
    if not weights:
        raise ValueError("the model has no parameter with two dimensions or more; relative flatness needs one")
    if layer is None:
        return weights[-1]
    for name in (layer, f"{layer}.weight"):
        if name in weights:
            return name
    raise ValueError(f'layer = "{layer}"; allowed: {", ".join(weights)}')


def _weighted_probes(weight: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Rows `(Wg) zᵀ`, flat: (count, P)."""
    shape = (2, count, weight.shape[1])
    signs = torch.randint(0, 2, shape, generator=generator, dtype=torch.int8, device="cpu")
    g, z = (2 * signs - 1).to(weight.device, weight.dtype)
    return torch.einsum("kj,oj,ki->koi", g, weight, z).flatten(1)
