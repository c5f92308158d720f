"""Whether what autograd gives as the gradient is the derivative of the outputs."""

import torch
from torch import Tensor

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.arithmetic import Watched
from overparam.measure.problem.examples import cast
from overparam.measure.problem.problem import Problem
from overparam.measure.problem.small import EXAMPLES, Small, contradiction, small


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


def refuse_false_loss(problem: Problem) -> None:
    """Slope and curvature of a loss of the caller's own, in the outputs of four examples, against differences.

    Raises:
        ValueError: one of them is not what autograd gives.
    """
    if isinstance(problem.loss, str) or problem.device.type == "mps":
        return
    x, y = problem.chunks[0]
    outputs, targets = problem.values(x[:EXAMPLES]).double(), cast(y[:EXAMPLES], torch.float64)
    leaf = outputs.clone().requires_grad_()
    try:
        with Watched() as seen:
            total = problem.losses(leaf, targets).sum()
        slope = torch.autograd.grad(total, leaf, create_graph=True)[0] if total.requires_grad else None
        wrong = None if slope is None else _wrong_in_outputs(problem, outputs, targets, leaf, slope, seen.eps)
    except (RuntimeError, TypeError, IndexError):  # a loss that is bound to a precision, or differentiated once
        return
    if wrong:
        raise ValueError(
            f"the gradient of the loss in the outputs is not its derivative, by {wrong:.1e} of its size: the loss "
            "detaches or clips a part (a weight that is held constant?); give one that autograd sees as a whole"
        )


def _wrong_in_outputs(
    problem: Problem, outputs: Tensor, targets: Tensor, leaf: Tensor, slope: Tensor, eps: float
) -> float | None:
    generator = torch_generator(0, "loss")
    v = torch.randn(outputs.shape, generator=generator, dtype=torch.float64, device="cpu").to(outputs.device)
    scale = 1.0 + float(torch.linalg.vector_norm(outputs))
    steps = [relative * scale for relative in ((1e-5, 1e-6) if eps < 1e-12 else (1e-2, 1e-3))]

    def losses(h: float) -> Tensor:
        return problem.losses(outputs + h * v, targets).detach().sum()

    def slopes(h: float) -> Tensor:
        moved = (outputs + h * v).requires_grad_()
        return torch.autograd.grad(problem.losses(moved, targets).sum(), moved)[0]

    first = contradiction(
        (slope.detach() * v).sum(),
        lambda h: (losses(h) - losses(-h)) / (2.0 * h),
        steps,
        lambda: eps * float(losses(0.0).abs()),
    )
    if first or not slope.requires_grad:
        return first
    curved = torch.autograd.grad(slope, leaf, v, allow_unused=True)[0]
    curved = torch.zeros_like(v) if curved is None else curved
    size = float(slope.detach().abs().max())
    return contradiction(curved, lambda h: (slopes(h) - slopes(-h)) / (2.0 * h), steps, lambda: eps * size)
