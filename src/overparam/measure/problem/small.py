"""A few examples of a problem, on which a derivative that autograd gives is held against central differences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.arithmetic import watched
from overparam.measure.problem.examples import cast
from overparam.measure.problem.padding import padding_rows, without_padding
from overparam.measure.problem.problem import Problem

EXAMPLES = 4
NUDGE = 1e-3  # away from kinks that the weights may sit on, as a zero bias under a blank image does
STEPS = (1e-7, 1e-9)  # relative to 1 + ‖θ‖; a kink between the two points is rarer the shorter the step
COARSE_STEPS = (1e-3, 1e-4)  # where float32 or less is in between, which hides shorter ones
WRONG = 1e-4  # relative; rounding in float64 leaves 1e-6
DRAWN = 2**16 + 1  # random numbers; not a multiple of usual sizes of layers
ROUNDING = 100.0  # units of rounding by which a difference may be off


@dataclass(frozen=True)
class Small:
    """The first examples at a point near θ, in float64 where the model can, with a loss of order one.

    `eps` is the machine ε of the coarsest arithmetic that the outputs pass through.
    """

    problem: Problem
    eps: float

    def direction(self, *purpose: str) -> Tensor:
        """A random unit direction, without the rows at `padding_idx`: embeddings count those as fixed."""
        parts = self.problem.layout.split(_drawn(self.problem, *purpose).to(self.problem.theta))
        v = self.problem.layout.join(without_padding(parts, padding_rows(self.problem)).values())
        unit: Tensor = v / torch.linalg.vector_norm(v)
        return unit

    def contradiction(
        self, claimed: Tensor, difference: Callable[[float], Tensor], size_of_terms: Callable[[], float]
    ) -> float | None:
        """`contradiction` by steps in the weights that suit their arithmetic."""
        scale = 1.0 + _norm(self.problem.theta)
        steps = [relative * scale for relative in (STEPS if self.eps < 1e-12 else COARSE_STEPS)]
        return contradiction(claimed, difference, steps, lambda: self.eps * size_of_terms())


def contradiction(
    claimed: Tensor, difference: Callable[[float], Tensor], steps: Sequence[float], rounding: Callable[[], float]
) -> float | None:
    """By how much of its size a claimed derivative differs from what differences show; `None` if none can tell.

    It is right, 0, if one difference agrees with it. If two differences of steps a factor apart do not agree with each
    other, rounding or a kink lies between, and nothing can be said. `rounding` is that of what is subtracted.
    """
    found: list[tuple[Tensor, float, float]] = []
    for h in steps:
        shown = difference(h)
        size = max(_norm(shown), _norm(claimed), torch.finfo(claimed.dtype).tiny)
        apart = _norm(shown - claimed)
        if apart <= WRONG * size:
            return 0.0
        apart = max(0.0, apart - ROUNDING * rounding() / h)
        if apart <= WRONG * size:
            return None
        found.append((shown, apart, apart / size))
    (one, apart, share), (other, _, again) = found
    return min(share, again) if _norm(one - other) <= apart / 4.0 else None


def small(problem: Problem) -> Small:
    try:
        return _in_precision(problem, torch.float64)
    except (RuntimeError, TypeError, ValueError):  # the model is bound to its own
        return _in_precision(problem, problem.theta.dtype)


def _in_precision(problem: Problem, dtype: torch.dtype) -> Small:
    few = _few(problem, dtype)
    return Small(few, watched(few, few.leaves(), few.chunks[0][0])[1])


def _few(problem: Problem, dtype: torch.dtype) -> Problem:
    z = _drawn(problem)
    x, y = (cast(each[:EXAMPLES], dtype) for each in problem.chunks[0])
    theta = problem.theta.to(dtype)
    theta = theta + NUDGE * (theta.abs().mean() + NUDGE) * z.to(theta)
    fixed = {name: cast(value, dtype) for name, value in problem.fixed.items()}
    return replace(problem, loss=curved, chunks=((x, y),), theta=theta, fixed=fixed)


def _drawn(problem: Problem, *purpose: str) -> Tensor:
    """Gaussian numbers (P,), repeated after the first many: to draw them costs more than a pass where P is large."""
    generator = torch_generator(0, "second derivative", *purpose)
    z = torch.randn(min(problem.num_parameters, DRAWN), generator=generator, dtype=torch.float64, device="cpu")
    return z.repeat(-(-problem.num_parameters // len(z)))[: problem.num_parameters]


def curved(outputs: Tensor, _: Tensor) -> Tensor:
    """A loss with slope and curvature of order one in every output, where a trained one's would drown in rounding."""
    rows = outputs.flatten(1) if outputs.ndim > 1 else outputs.unsqueeze(1)
    slopes = torch.linspace(0.5, 1.5, rows.shape[1], dtype=rows.dtype, device=rows.device)
    return (slopes * rows + 0.5 * rows.square()).sum(1)


def _norm(value: Tensor) -> float:
    return float(torch.linalg.vector_norm(value))
