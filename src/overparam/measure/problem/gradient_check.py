"""Whether what autograd gives as the gradient is the derivative of the outputs."""

import torch
from torch import Tensor

from overparam.measure.problem.problem import Problem
from overparam.measure.problem.small import Small, small


def refuse_false_gradient(problem: Problem) -> None:
    """On four examples the slope along a direction must be what differences of a loss of the outputs show.

    A part of `forward` that is detached, a gradient that is clipped, reversed or passed straight through a rounding:
    such a model trains, but its gradients and curvatures are of no function.

    Raises:
        ValueError: it is not.
    """
    if problem.device.type == "mps":  # it has no float64
        return
    few = small(problem)
    try:
        gradient = few.problem.gradient()
    except RuntimeError as error:
        raise ValueError(f"a gradient of the model fails: {str(error).splitlines()[0]}") from error
    wrong = _contradiction(few, gradient)
    if wrong:
        raise ValueError(
            f"the gradient that autograd gives is not the derivative of the outputs: a slope differs by {wrong:.1e} of "
            "its size from a difference of the outputs. `forward` detaches or clips a part of what depends on the "
            "weights (a norm that is held constant, as in DoRA, a rounding passed straight through, a reversed "
            "gradient); measures that take derivatives would be of no function"
        )


def _contradiction(few: Small, gradient: Tensor) -> float | None:
    """Half along the gradient, where a false part of it shows, half at random, where a missing part does."""
    length, v = float(torch.linalg.vector_norm(gradient)), few.direction("gradient")
    if length > 0.0:
        v = v + gradient / length
        v = v / torch.linalg.vector_norm(v)

    def difference(h: float) -> Tensor:
        theta, problem = few.problem.theta, few.problem
        ahead, behind = (_losses(problem, theta + step * v) for step in (h, -h))
        return (ahead - behind).sum().div(2.0 * h * problem.num_examples)

    def size() -> float:
        return float(_losses(few.problem, few.problem.theta).abs().sum()) / few.problem.num_examples

    return few.contradiction(gradient @ v, difference, size)


def _losses(problem: Problem, theta: Tensor) -> Tensor:
    (x, y) = problem.chunks[0]
    return problem.losses(problem.values(x, theta), y).detach()
