"""A first guess of extreme eigenvectors from a few of the examples."""

from dataclasses import dataclass

import torch
from torch import Tensor

from overparam.measure.problem.problem import Problem
from overparam.measure.problem.subset import restricted
from overparam.measure.products.operators import Curvature, CurvatureOperator
from overparam.measure.spectrum.extremes import Solve, Which

WARM_STEPS = 4  # of the solve that follows: from a good guess a small residual is no chance
WARM_PRODUCTS = 200  # on the subset at most; a constant, so that a solve that goes on starts from the same guess
SUBSET_TOL = 0.1  # a subset's eigenvector is farther from the data's than this residual moves it
SUBSET_STEPS = 5  # at least; a guess may be wrong
UNIMODAL_FROM = 3  # parameters; below, a component of a random unit vector is likeliest to be ±1, see `mixed`


@dataclass(frozen=True)
class Warm:
    """A unit vector, and the products on the subset that it took."""

    vector: Tensor
    num_products: int


def refuse_subset(size: int | None, num_examples: int) -> None:
    if size is not None and not 1 <= size < num_examples:
        raise ValueError(
            f"warm_start = {size}; allowed: at least 1 and fewer than the {num_examples} examples of the data"
        )


def drawn_subset(problem: Problem, size: int, generator: torch.Generator) -> Problem:
    """The problem of `size` examples drawn without replacement, in the order of the data."""
    return restricted(problem, torch.randperm(problem.num_examples, generator=generator, device="cpu")[:size])


def warm_vector(subset: Problem, curvature: Curvature, k: int, which: Which, generator: torch.Generator) -> Warm:
    """The sum of the k Ritz vectors at each wanted end of the subset's curvature, as a unit vector.

    Later draws of `generator` are independent of it.
    """
    operator = CurvatureOperator(subset, curvature, check=False)  # whatever it gives is only a guess
    solve = Solve(operator, k, which, SUBSET_TOL, WARM_PRODUCTS, generator, SUBSET_STEPS)
    solve.run()
    total = torch.stack([pair.vector for pairs in solve.found.values() for pair in pairs]).sum(0)
    return Warm(total / torch.linalg.vector_norm(total), operator.num_products)
