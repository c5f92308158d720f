"""Two measures of flatness: how much noise the accuracy bears, and the curvature of a layer times its own weights."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from scipy.special import stdtrit
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.estimate import Estimate, mean_with_interval
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Data, Loss, Problem
from overparam.measure.sharpness.weight_noise import Scale, refuse_draws, scaled_direction
from overparam.models.reach import Unused

FIRST, SMALLEST, LARGEST = 0.01, 1e-8, 1e4  # noise levels: where the search begins, and its limits
TOLERANCE = 0.01  # relative width of the last bracket of a noise level


def pac_bayes_sigma(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    drop: float = 0.1,
    draws: int = 5,
    scale: Scale = "absolute",
    params: Sequence[str] | str | None = None,
    unused: Unused = "refuse",
    generator: torch.Generator | None = None,
) -> Estimate:
    """The noise level σ at which the accuracy at `θ + σ d`, in the mean over random d, falls by `drop` (a share).

    `1/σ²` is the PAC-Bayes sharpness of Jiang et al. 2020; scales as in `perturbation_curve`. Bisection on log σ to
    1 %, along the same directions at every σ. The 95 % interval is `σ·exp(± t s/√draws)` with s the standard deviation
    of the logarithms of each draw's own σ (Student); it is (0, inf) for one draw, or where a draw's accuracy never
    falls that far. `num_products` counts passes over the data. Status "lower_bound": not even σ = 10⁴ is enough.

    Raises:
        ValueError: the targets are not classes, `drop` is not between 0 and the accuracy, another argument is out of
            range, or the model, loss or data cannot be measured (see `opened`).

    >>> model, twice = nn.Linear(1, 2, bias=False), nn.Linear(1, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[1.0], [0.0]])), twice.weight.data.copy_(2 * model.weight.data)
    >>> data = (torch.ones(1, 1), torch.tensor([0]))
    >>> wide, narrow = (pac_bayes_sigma(each, "cross_entropy", data, draws=20).value for each in (twice, model))
    >>> round(wide / narrow, 1)  # twice the weights bear twice the noise
    2.0
    """
    refuse_draws(draws)
    generator = generator or torch_generator(0, "pac_bayes")
    with opened(model, loss, data, params=params, unused=unused, gradients=False) as problem:
        accuracy = problem.risk()[1]
        _refuse_drop(drop, accuracy)
        directions = [scaled_direction(problem, scale, generator) for _ in range(draws)]
        noise = Noise(problem, directions, accuracy - drop)
        found = crossing(partial(noise.fell, draws=range(draws)))
        own = [crossing(partial(noise.fell, draws=[j])) for j in range(draws)]
    return _with_interval(found, own, noise.num_passes)


def _refuse_drop(drop: float, accuracy: float) -> None:
    if math.isnan(accuracy):
        raise ValueError("the model has no accuracy: targets must be classes (integers, one per example)")
    if not 0.0 < drop < accuracy:
        raise ValueError(f"drop = {drop}; allowed: between 0 and the accuracy of the model, {accuracy:.4g}")


@dataclass
class Noise:
    """Accuracies along fixed directions, each computed once."""

    problem: Problem
    directions: list[Tensor]
    target: float
    known: dict[tuple[int, float], float] = field(default_factory=dict)

    @property
    def num_passes(self) -> int:
        return len(self.known)

    def fell(self, sigma: float, draws: Sequence[int]) -> bool:
        """Whether the mean accuracy of some of the draws is at the target or below."""
        for j in draws:
            if (j, sigma) not in self.known:
                theta = self.problem.theta + sigma * self.directions[j]
                self.known[j, sigma] = self.problem.risk(theta)[1]
        mean = math.fsum(self.known[j, sigma] for j in draws) / len(draws)
        return mean <= self.target + 1e-9  # shares of a count are equal but for rounding


def crossing(fell: Callable[[float], bool]) -> float:
    """The σ from which `fell` holds, to 1 %: inf if it does not even at `LARGEST`, 0 if it does even at `SMALLEST`.

    >>> abs(crossing(lambda sigma: sigma >= 3.0) / 3.0 - 1.0) < 0.01
    True
    """
    low = high = FIRST
    while low > SMALLEST and fell(low):
        low, high = low / 2.0, low
    while high < LARGEST and not fell(high):
        low, high = high, high * 2.0
    if not fell(high):
        return math.inf
    if fell(low):
        return 0.0
    while high > (1.0 + TOLERANCE) * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fell(middle) else (middle, high)
    return math.sqrt(low * high)


def _with_interval(found: float, own: list[float], passes: int) -> Estimate:
    if math.isinf(found):
        return Estimate(LARGEST, math.nan, LARGEST, math.inf, "lower_bound", passes)
    if len(own) < 2 or not all(0.0 < sigma < math.inf for sigma in own):
        return Estimate(found, math.nan, 0.0, math.inf, "ok", passes)
    spread = mean_with_interval([math.log(sigma) for sigma in own], passes)
    half = float(stdtrit(len(own) - 1, 0.975)) * spread.stderr
    return Estimate(found, found * spread.stderr, found * math.exp(-half), found * math.exp(half), "ok", passes)
