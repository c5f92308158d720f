"""How large a batch must be for its gradient to say more than its noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.estimate import Estimate
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Data, Loss, Problem
from overparam.measure.problem.subset import restricted
from overparam.measure.products.operators import NOT_FINITE
from overparam.models.reach import Unused


@dataclass(frozen=True, kw_only=True)
class NoiseScale(Estimate):
    """`value = trace / squared_norm`, in examples; infinite where `squared_norm` is not positive.

    `trace` is that of the covariance of one example's gradient, `squared_norm` that of the mean gradient, both unbiased
    for the distribution that the examples were drawn from, so that the second can be negative. `num_products` counts
    the groups, each of which takes one gradient.
    """

    trace: float
    squared_norm: float


def gradient_noise_scale(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    groups: int = 32,
    params: Sequence[str] | str | None = None,
    unused: Unused = "refuse",
    generator: torch.Generator | None = None,
) -> NoiseScale:
    """The simple noise scale `tr Σ / ‖G‖²`: the batch size at which noise and gradient are equally large.

    With g the gradient of one example's loss, `G = E g` and `Σ = Cov g`; the mean gradient of B independent examples
    has `E‖g_B‖² = ‖G‖² + tr Σ/B`. The N examples are divided at random into M groups of n_m (differing by one at most)
    with mean gradients g_m. Then `S = Σ_m n_m ‖g_m − ḡ‖² / (M − 1)` and `‖ḡ‖² − S/N` are unbiased for `tr Σ` and
    `‖G‖²`, both for draws of new examples and not for the given ones alone.

    The 95 % interval is Fieller's for a ratio, with M − 1 degrees of freedom and the jackknife's covariance of the two
    over groups. It reaches to infinity where `‖G‖² = 0` is not excluded, as at a minimum. M gradients are held at once.
    Source: McCandlish et al. (2018).

    Raises:
        ValueError: there are fewer than three groups or examples, or the model, loss or data cannot be measured.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> y = torch.tensor([[1.0], [3.0], [1.0], [3.0]])  # gradients −y: tr Σ = 4/3, ‖G‖² = 2² − 1/3
    >>> found = gradient_noise_scale(model, "mse", (torch.ones(4, 1), y))
    >>> round(found.trace, 4), round(found.squared_norm, 4), round(found.value, 4)
    (1.3333, 3.6667, 0.3636)
    """
    if groups < 3:
        raise ValueError(f"groups = {groups}; allowed: an integer ≥ 3, so that there is an interval")
    generator = generator or torch_generator(0, "gradient noise")
    with opened(model, loss, data, params=params, unused=unused) as problem:
        if problem.num_examples < 3:
            raise ValueError(f"data holds {problem.num_examples} examples; the noise of a gradient needs at least 3")
        order = torch.randperm(problem.num_examples, generator=generator, device="cpu")
        parts = torch.tensor_split(order, min(groups, problem.num_examples))
        gradients = torch.stack([restricted(problem, part).gradient() for part in parts])
        sizes = torch.tensor([len(part) for part in parts], dtype=torch.float64, device="cpu")
        _refuse_apart(problem, gradients, sizes)
        # Differences of two gradients are what matters: squares of a common part would cost their digits.
        centre = gradients.mean(0)
        apart, centre = (gradients - centre).double(), centre.double()
        gram, shift = (apart @ apart.T).cpu(), (apart @ centre).cpu()
        return noise_scale(gram + shift + shift[:, None] + float(centre @ centre), sizes)


def _refuse_apart(problem: Problem, gradients: Tensor, sizes: Tensor) -> None:
    """PyTorch has operations whose gradient of one example alone is not its part of the gradient of many."""
    whole = problem.gradient()
    total = (sizes.to(gradients) @ gradients) / problem.num_examples
    eps = max(problem.eps, torch.finfo(whole.dtype).eps)
    size = torch.linalg.vector_norm(gradients, dim=1).mean()  # the whole one may be near zero
    apart = float(torch.linalg.vector_norm(total - whole) / size) if bool(size) else 0.0
    if not math.isfinite(apart):
        raise ValueError(NOT_FINITE)
    if apart > eps**0.5:
        raise ValueError(
            f"gradients of a few examples add up to another gradient than that of all, by {apart:.1e} of their size: "
            "PyTorch differentiates an operation of the model wrongly in small batches. Ask for fewer, larger groups "
            f"than groups = {len(sizes)}, or give more examples"
        )


def noise_scale(gram: Tensor, sizes: Tensor) -> NoiseScale:
    """From the inner products of the groups' mean gradients (M, M) and the sizes of the groups (M,)."""
    count = len(sizes)
    trace, squared_norm = _moments(gram, sizes)
    kept = [torch.arange(count, device="cpu") != left_out for left_out in range(count)]
    pairs = [_moments(gram[keep][:, keep], sizes[keep]) for keep in kept]
    without = torch.tensor(pairs, dtype=torch.float64, device="cpu")
    apart = without - without.mean(0)
    covariance = (count - 1) / count * apart.T @ apart
    lower, upper = _ratio_interval((trace, squared_norm), covariance, count - 1)
    value, stderr = math.inf, math.inf
    if squared_norm > 0.0:
        value = trace / squared_norm
        slope = torch.tensor([1.0, -value], dtype=torch.float64, device="cpu") / squared_norm
        stderr = math.sqrt(max(0.0, float(slope @ covariance @ slope)))
    return NoiseScale(value, stderr, lower, upper, "ok", count, trace=trace, squared_norm=squared_norm)


def _moments(gram: Tensor, sizes: Tensor) -> tuple[float, float]:
    """Unbiased `tr Σ` and `‖G‖²`."""
    total = float(sizes.sum())
    weights = sizes / total
    mean = float(weights @ gram @ weights)
    trace = (float(sizes @ gram.diagonal()) - total * mean) / (len(sizes) - 1)
    return trace, mean - trace / total


def _ratio_interval(means: tuple[float, float], covariance: Tensor, freedom: int) -> tuple[float, float]:
    """All R ≥ 0 with `|a − R b| ≤ t · se(a − R b)`: the 95 % interval of a/b by Fieller (1954)."""
    a, b = means
    t = float(stdtrit(freedom, 0.975))
    (aa, ab), (_, bb) = (t * t * covariance).tolist()
    square, mixed, constant = b * b - bb, a * b - ab, a * a - aa
    root = math.sqrt(max(0.0, mixed * mixed - square * constant))
    if square > 0.0 and b > 0.0:
        return max(0.0, (mixed - root) / square), (mixed + root) / square
    # b = 0 is not excluded, so that every large ratio fits; small ones do unless a = 0 is excluded.
    return ((mixed - root) / square if square < 0.0 < constant else 0.0), math.inf
