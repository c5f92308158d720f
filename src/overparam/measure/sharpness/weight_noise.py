"""Loss and accuracy under random noise on the weights, and the noise directions that other measures share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from scipy.special import stdtrit
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Data, Loss, Problem
from overparam.models.reach import Unused

Scale = Literal["absolute", "filter", "adaptive"]
SCALES = ("absolute", "filter", "adaptive")


@dataclass(frozen=True)
class Curve:
    """Risks at `θ + σ d_j` for S noise levels and D draws; tensors are float64 on the CPU, losses in nats or ½‖·‖².

    Row i of `losses` and `accuracies`, both (S, D), belongs to `sigma[i]`, column j to draw j at every level. Losses
    that are not finite stay as they are and reach the means; accuracies are NaN where targets are not classes.
    """

    sigma: Tensor
    base_loss: float
    base_accuracy: float
    losses: Tensor
    accuracies: Tensor
    scale: Scale

    @property
    def draws(self) -> int:
        return self.losses.shape[1]

    @property
    def loss_mean(self) -> Tensor:
        """Mean loss over the draws (S,)."""
        return self.losses.mean(1)

    @property
    def loss_sem(self) -> Tensor:
        """Standard error of `loss_mean` (S,); NaN for one draw."""
        return _standard_error(self.losses)

    @property
    def accuracy_mean(self) -> Tensor:
        return self.accuracies.mean(1)

    @property
    def accuracy_sem(self) -> Tensor:
        return _standard_error(self.accuracies)

    @property
    def increase(self) -> Tensor:
        """`loss_mean − base_loss` (S,)."""
        return self.loss_mean - self.base_loss

    @property
    def increase_lower(self) -> Tensor:
        """Lower end of Student's 95 % interval of `increase` over the draws; −inf for one draw."""
        return self.increase - self._half_width()

    @property
    def increase_upper(self) -> Tensor:
        """Upper end of Student's 95 % interval of `increase` over the draws; inf for one draw."""
        return self.increase + self._half_width()

    @property
    def relative_increase(self) -> Tensor:
        """`increase / base_loss` (S,)."""
        return self.increase / self.base_loss

    def _half_width(self) -> Tensor:
        if self.draws == 1:
            return torch.full_like(self.sigma, torch.inf)
        return float(stdtrit(self.draws - 1, 0.975)) * self.loss_sem


def perturbation_curve(
    model: nn.Module,
    loss: Loss,
    data: Data,
    sigmas: Sequence[float] | Tensor,
    *,
    draws: int = 5,
    scale: Scale = "absolute",
    antithetic: bool = False,
    params: Sequence[str] | str | None = None,
    unused: Unused = "refuse",
    generator: torch.Generator | None = None,
) -> Curve:
    """Losses and accuracies at `θ + σ d`, for every σ along the same `draws` random directions d.

    - `absolute`: `d = z`, standard normal. Then `E L(θ + σz) − L(θ) = σ² tr(∇²L)/2 + O(σ⁴)`.
    - `filter`: `d_i = z_i ‖w_i‖/‖z_i‖` for each slice `w_i` along the first dimension of a weight, one output unit of a
      Linear or Conv layer; biases and norm scales, with one dimension, stay fixed (Li et al. 2018).
    - `adaptive`: `d = |θ| ⊙ z` (Kwon et al. 2021).

    The directions are common to all σ, so that a curve is smooth in σ; the errors of its points are dependent.
    `antithetic` takes each draw at `θ + σd` and `θ − σd` and keeps the mean of the two: the gradient's part cancels,
    which at small σ is nearly all of the error, at twice the cost.

    Raises:
        ValueError: an argument is out of range, `filter` finds no weight with two dimensions, or the model, loss or
            data cannot be measured (see `opened`).

    >>> model = nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    >>> at_minimum = (x, model(x).detach())  # the loss is quadratic: twice the noise, four times the increase
    >>> curve = perturbation_curve(model, "mse", at_minimum, [0.5, 1.0])
    >>> round(float(curve.increase[1] / curve.increase[0]), 3)
    4.0
    """
    levels = _levels(sigmas)
    refuse_draws(draws)
    generator = generator or torch_generator(0, "perturbation")
    with opened(model, loss, data, params=params, unused=unused, gradients=False) as problem:
        base_loss, base_accuracy = problem.risk()
        columns = [
            _risks(problem, levels, scaled_direction(problem, scale, generator), antithetic) for _ in range(draws)
        ]
        risks = torch.stack(columns, dim=1)
    return Curve(levels, base_loss, base_accuracy, risks[..., 0], risks[..., 1], scale)


def scaled_direction(problem: Problem, scale: Scale, generator: torch.Generator) -> Tensor:
    """A random direction (P,) for noise at the given scale, see `perturbation_curve`; drawn in float64 on the CPU.

    Raises:
        ValueError: the scale is unknown, or `filter` finds no parameter with two dimensions.
    """
    if scale not in SCALES:
        raise ValueError(f'unknown scale "{scale}"; allowed: {", ".join(SCALES)}')
    theta = problem.theta
    z = torch.randn(problem.num_parameters, generator=generator, dtype=torch.float64, device="cpu")
    z = z.to(theta.dtype).to(theta.device)
    if scale == "absolute":
        return z
    return z * theta.abs() if scale == "adaptive" else _filter_normalized(problem, z)


def _filter_normalized(problem: Problem, z: Tensor) -> Tensor:
    if all(len(shape) < 2 for shape in problem.layout.shapes):
        raise ValueError(
            'scale "filter" needs a weight with two dimensions or more among the parameters; there are: '
            + ", ".join(problem.layout.names)
        )
    noise, weights = problem.layout.split(z), problem.layout.split(problem.theta)
    return problem.layout.join(_like_filters(noise[name], weight) for name, weight in weights.items())


def _like_filters(z: Tensor, weight: Tensor) -> Tensor:
    """z with the norm of each filter; zero for parameters that have none."""
    if weight.ndim < 2:
        return torch.zeros_like(z)
    norms, own = (torch.linalg.vector_norm(each.flatten(1), dim=1, keepdim=True) for each in (weight, z))
    scaled: Tensor = z.flatten(1) * (norms / own)
    return scaled


def refuse_draws(draws: int) -> None:
    if draws < 1:
        raise ValueError(f"draws = {draws}; allowed: an integer ≥ 1")


def _risks(problem: Problem, levels: Tensor, direction: Tensor, antithetic: bool) -> Tensor:
    """Loss and accuracy at each level, (S, 2)."""
    sides = (1.0, -1.0) if antithetic else (1.0,)
    found = [[problem.risk(problem.theta + side * sigma * direction) for side in sides] for sigma in levels.tolist()]
    return torch.tensor(found, dtype=torch.float64, device="cpu").mean(1)


def _levels(sigmas: Sequence[float] | Tensor) -> Tensor:
    given = sigmas.detach().cpu() if isinstance(sigmas, Tensor) else sigmas
    levels = torch.as_tensor(given, dtype=torch.float64, device="cpu")
    if levels.ndim != 1 or len(levels) == 0:
        raise ValueError(f"sigmas = {sigmas}; allowed: a list of at least one noise level")
    if not bool((levels.isfinite() & (levels >= 0.0)).all()):
        raise ValueError(f"sigmas = {levels.tolist()}; allowed: finite numbers ≥ 0")
    return levels


def _standard_error(values: Tensor) -> Tensor:
    draws = values.shape[1]
    if draws == 1:
        return torch.full((len(values),), torch.nan, dtype=values.dtype, device=values.device)
    error: Tensor = values.std(1) / draws**0.5
    return error
