"""Whether an operation's second derivative is right: a Hessian product on a few examples against a difference.

PyTorch's own `weight_norm` has a wrong one on the CPU, and so has any autograd function that hides from autograd how
its backward pass depends on the input. Products are then not symmetric, or symmetric and wrong.
"""

from dataclasses import replace

import torch
from torch import Tensor

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.examples import cast
from overparam.measure.problem.problem import Problem

EXAMPLES = 4
NUDGE = 1e-3  # away from kinks that the weights may sit on, as a zero bias under a blank image does
STEPS = (1e-7, 1e-9)  # relative to 1 + ‖θ‖; a kink between the two points is rarer the shorter the step
WRONG = 1e-4  # relative; rounding leaves 1e-6


def small_copy(problem: Problem) -> tuple[Problem, Tensor]:
    """The first examples in float64 at a point near θ, with a loss of order one, and a random unit direction."""
    generator, wide = torch_generator(0, "second derivative"), torch.float64
    x, y = (cast(each[:EXAMPLES], wide) for each in problem.chunks[0])
    z, v = (torch.randn(problem.num_parameters, generator=generator, dtype=wide) for _ in range(2))
    theta = problem.theta.to(wide)
    theta = theta + NUDGE * (theta.abs().mean() + NUDGE) * z.to(theta.device)
    fixed = {name: cast(value, wide) for name, value in problem.fixed.items()}
    few = replace(problem, loss=curved, chunks=((x, y),), theta=theta, fixed=fixed)
    return few, (v / torch.linalg.vector_norm(v)).to(theta.device)


def curved(outputs: Tensor, _: Tensor) -> Tensor:
    """A loss with slope and curvature of order one in every output, where a trained one's would drown in rounding."""
    rows = outputs.flatten(1) if outputs.ndim > 1 else outputs.unsqueeze(1)
    slopes = torch.linspace(0.5, 1.5, rows.shape[1], dtype=rows.dtype, device=rows.device)
    return (slopes * rows + 0.5 * rows.square()).sum(1)


def relative_error(few: Problem, v: Tensor, product: Tensor) -> float:
    """Of `product` = Hv against a central difference of gradients; the smaller of two steps, if the first is wrong."""
    error = _error_at(few, v, product, STEPS[0])
    return error if error <= WRONG else min(error, _error_at(few, v, product, STEPS[1]))


def _error_at(few: Problem, v: Tensor, product: Tensor, step: float) -> float:
    """Beyond what rounding may do."""
    h = step * (1.0 + float(torch.linalg.vector_norm(few.theta)))
    ahead, behind = few.gradient(few.theta + h * v), few.gradient(few.theta - h * v)
    difference = (ahead - behind).div(2.0 * h)
    rounding = 1e-15 * float(ahead.abs().max()) / h
    size = max(float(torch.linalg.vector_norm(difference)), float(torch.linalg.vector_norm(product)))
    apart = float(torch.linalg.vector_norm(difference - product))
    return max(0.0, apart - 100.0 * rounding) / max(size, 1e-30)
