"""Whether products with a curvature are right, tried on a few examples before any is trusted.

PyTorch's own `weight_norm` has a wrong second derivative on the CPU, and so has any autograd function that hides from
autograd how its backward pass depends on the input. Products are then not symmetric, or symmetric and wrong.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from overparam.measure.problem.problem import Problem
from overparam.measure.problem.small import ROUNDING, Small, small

Product = Callable[[Tensor], Tensor]
ASYMMETRIC = 1e-3  # of the size of the products


def refuse_wrong_products(problem: Problem, product_of: Callable[[Problem], Product], hessian: bool) -> None:
    """A product on four examples must be what differences show, and products must be symmetric.

    For the Hessian they are differences of gradients. For a product `Jᵀ J v` they are those of the outputs, pulled back
    by plain autograd: `Jᵀ (f(θ + hv) − f(θ − hv))/2h`.

    Raises:
        ValueError: it is not, or they are not.
    """
    if problem.device.type == "mps":  # it has no float64
        return
    few = small(problem)
    try:
        product, v = product_of(few.problem), few.direction("v")
        claimed = product(v)
        wrong = _contradiction(few, v, claimed, hessian)
        if wrong is None:  # then let it be symmetric at least
            _refuse_asymmetric(few, v, claimed, product)
    except (RuntimeError, TypeError):  # what has no such derivative is met again, on all the data
        return
    if wrong:
        raise ValueError(
            f"the second derivative of the model is wrong: a product differs by {wrong:.1e} of its size from a "
            "difference. The backward pass of some operation hides how it depends on its input (an "
            "autograd function of your own?); write the operation in plain PyTorch"
        )


def _refuse_asymmetric(few: Small, v: Tensor, of_v: Tensor, product: Product) -> None:
    u = few.direction("u")
    of_u = product(u)
    sizes = [float(torch.linalg.vector_norm(each)) for each in (of_u, of_v)]
    apart = abs(float(u @ of_v) - float(v @ of_u))
    if apart > max(ASYMMETRIC, ROUNDING * few.eps) * max(sizes):
        raise ValueError(
            f"products with the curvature are not symmetric: uᵀCv and vᵀCu differ by {apart / max(sizes):.1e} of their "
            "size. Some operation has a wrong derivative; write it in plain PyTorch"
        )


def _contradiction(few: Small, v: Tensor, claimed: Tensor, hessian: bool) -> float | None:
    problem, theta = few.problem, few.problem.theta
    x, _ = problem.chunks[0]

    def of_gradients(h: float) -> Tensor:
        return (problem.gradient(theta + h * v) - problem.gradient(theta - h * v)).div(2.0 * h)

    def of_outputs(h: float) -> Tensor:
        ahead, behind = (problem.values(x, theta + step * v) for step in (h, -h))
        return _pulled_back(problem, (ahead - behind).div(2.0 * h))

    if hessian:
        return few.contradiction(claimed, of_gradients, lambda: float(problem.gradient().abs().max()))
    return few.contradiction(claimed, of_outputs, lambda: float(_pulled_back(problem, problem.values(x)).abs().max()))


def _pulled_back(problem: Problem, cotangent: Tensor) -> Tensor:
    """`Jᵀ w / n` by plain autograd."""
    leaves = problem.leaves()
    outputs = problem.outputs(leaves, problem.chunks[0][0])
    parts = torch.autograd.grad(outputs, tuple(leaves.values()), cotangent, materialize_grads=True)
    return problem.layout.join(parts) / problem.num_examples
