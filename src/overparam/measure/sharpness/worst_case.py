"""The largest loss within a ball around a model's weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.estimate import Estimate
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Data, Loss, Problem
from overparam.models.reach import Unused

Norm = Literal["l2", "linf", "keskar"]
FIRST_STEP = 4.0  # radii: on a convex loss nearly a power iteration, which never goes down there
MOMENTUM = 0.5  # weight of the last step, in radii, next to the unit steepest direction; the step multiplies both


def worst_case_sharpness(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    radius: float,
    norm: Norm = "l2",
    adaptive: bool = False,
    steps: int = 20,
    restarts: int = 3,
    params: Sequence[str] | str | None = None,
    unused: Unused = "refuse",
    generator: torch.Generator | None = None,
) -> Estimate:
    """`max L(θ+δ) − L(θ)` within a ball, as far as gradient ascent finds it: a lower bound.

    - `l2`, `linf`: `‖δ‖₂ ≤ radius`, `‖δ‖_∞ ≤ radius`; with `adaptive`, `‖δ/|θ|‖ ≤ radius`, where weights at 0 stay
      there (Kwon et al. 2021). On a quadratic at its minimum `l2` gives `radius² λmax/2`.
    - `keskar`: `|δ_i| ≤ radius·(|θ_i|+1)`, value `100·(max L − L)/(1 + L)` (Keskar et al. 2017).

    Projected ascent along `d + ½(u − u_before)/radius`, with d the norm's steepest unit direction and u the point, from
    `restarts` random points inside the ball; the first step is four radii. A step that does not improve is not taken:
    first the momentum is left out, then the step halved (Croce and Hein 2020 halve at checkpoints and weigh the last
    step by .25 whatever the step). Costs restarts·(steps+1) gradients, `num_products`. A loss that is not finite
    somewhere in the ball makes the value inf.
    Losses of networks have many local maxima: on two small trained networks a call found between 37 % and 100 % of the
    best of six calls. On quadratics whose largest eigenvalues are close together (1,000 weights, thousands of Gaussian
    inputs) 20 steps stay up to 4 % below the maximum, 100 steps up to .5 %.

    Raises:
        ValueError: an argument is out of range, `adaptive` comes with `keskar` or with weights that are all zero, or
            the model, loss or data cannot be measured (see `opened`).

    >>> model = nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 3.0]])  # Hessian diag(1/2, 9/2)
    >>> found = worst_case_sharpness(model, "mse", (x, model(x).detach()), radius=0.1)
    >>> round(found.value, 4), found.status  # 0.1² · 4.5 / 2
    (0.0225, 'lower_bound')
    """
    _refuse(radius, norm, adaptive, steps, restarts)
    generator = generator or torch_generator(0, "sharpness")
    with opened(model, loss, data, params=params, unused=unused) as problem:
        ball = Ball(radius, "l2" if norm == "l2" else "linf")
        ascent = Ascent(problem, ball, _stretch(problem.theta, norm, adaptive))
        base = highest = problem.risk()[0]  # δ = 0 is in the ball
        if norm == "keskar" and not base > -1.0:
            raise ValueError(f'norm = "keskar" divides by 1 + L, and the loss L is {base:.4g}; allowed: L > −1')
        for _ in range(restarts):
            if math.isfinite(highest):
                highest = max(highest, ascent.run(ball.draw(problem.theta, generator), steps))
    rise = highest - base
    value = 100.0 * rise / (1.0 + base) if norm == "keskar" else rise
    return Estimate(value, math.nan, value, math.inf, "lower_bound", ascent.num_gradients)


def _refuse(radius: float, norm: str, adaptive: bool, steps: int, restarts: int) -> None:
    if norm not in ("l2", "linf", "keskar"):
        raise ValueError(f'norm = "{norm}"; allowed: "l2", "linf", "keskar"')
    if adaptive and norm == "keskar":
        raise ValueError('adaptive: the "keskar" box already grows with the weights; use norm="l2" or "linf"')
    if not (math.isfinite(radius) and radius > 0.0):
        raise ValueError(f"radius = {radius}; allowed: a positive number")
    if steps < 1 or restarts < 1:
        raise ValueError(f"steps = {steps}, restarts = {restarts}; allowed: both at least 1")


def _stretch(theta: Tensor, norm: Norm, adaptive: bool) -> Tensor:
    """s with `δ = s ⊙ u`, so that u lies in a plain ball."""
    if norm == "keskar":
        return theta.abs() + 1.0
    if adaptive and not bool(theta.any()):
        raise ValueError("adaptive: all weights are zero, so that no δ/|θ| is finite; use adaptive=False")
    return theta.abs() if adaptive else torch.ones_like(theta)


@dataclass(frozen=True)
class Ball:
    """`‖u‖ ≤ radius`, with the norm's projection and steepest direction."""

    radius: float
    norm: Literal["l2", "linf"]

    def draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """A uniform point inside; drawn in float64 on the CPU."""
        if self.norm == "linf":
            u = 2.0 * torch.rand(len(like), generator=generator, dtype=torch.float64, device="cpu") - 1.0
        else:
            z = torch.randn(len(like), generator=generator, dtype=torch.float64, device="cpu")
            depth = torch.rand(1, generator=generator, dtype=torch.float64, device="cpu") ** (1.0 / len(like))
            u = z / torch.linalg.vector_norm(z) * depth
        return (self.radius * u).to(like.dtype).to(like.device)

    def project(self, u: Tensor) -> Tensor:
        if self.norm == "linf":
            return u.clamp(-self.radius, self.radius)
        return u * (self.radius / max(float(torch.linalg.vector_norm(u)), self.radius))

    def steepest(self, slope: Tensor) -> Tensor:
        """The unit vector that maximizes `⟨slope, v⟩`."""
        if self.norm == "linf":
            return slope.sign()
        scaled = slope / slope.abs().max()  # the squares of a large slope would overflow
        unit: Tensor = scaled / torch.linalg.vector_norm(scaled)
        return unit


@dataclass
class Ascent:
    """Ascent of `u ↦ L(θ + s ⊙ u)` within a ball."""

    problem: Problem
    ball: Ball
    stretch: Tensor
    num_gradients: int = 0

    def run(self, start: Tensor, steps: int) -> float:
        """The largest loss seen from one start; inf as soon as one is not finite."""
        here = before = start
        (value, slope), step = self._at(here), FIRST_STEP * self.ball.radius
        for _ in range(steps):
            if not (math.isfinite(value) and bool(slope.isfinite().all()) and bool(slope.any())):
                break  # nowhere to go
            ahead = self.ball.steepest(slope) + MOMENTUM / self.ball.radius * (here - before)
            there = self.ball.project(here + step * ahead)
            found, found_slope = self._at(there)
            if found > value:
                before, here, value, slope = here, there, found, found_slope
            elif before is not here:  # first without momentum, then by shorter steps
                before = here
            else:
                step /= 2.0
        return value

    def _at(self, u: Tensor) -> tuple[float, Tensor]:
        """`L(θ + s ⊙ u)`, inf if it is not finite, and its gradient in u, in one pass over the data."""
        leaves = self.problem.leaves(self.problem.theta + self.stretch * u)
        total, slope = 0.0, torch.zeros_like(u)
        for x, y in self.problem.chunks:
            losses = self.problem.losses(self.problem.outputs(leaves, x), y)
            if losses.requires_grad:  # they may depend on none of the parameters
                parts = torch.autograd.grad(losses.sum(), tuple(leaves.values()), materialize_grads=True)
                slope += self.problem.layout.join(parts)
            total += float(losses.detach().cpu().double().sum())
        self.num_gradients += 1
        value = total / self.problem.num_examples
        return value if math.isfinite(value) else math.inf, self.stretch * slope / self.problem.num_examples
