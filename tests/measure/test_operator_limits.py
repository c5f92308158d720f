"""What operators refuse, what they leave alone and what they free; matrices as operators."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Problem
from overparam.measure.products.operators import Curvature, CurvatureOperator, MatrixOperator, dense
from tests.support.networks import images, rows, small_cnn, smooth_mlp
from tests.support.oracles import (
    random_vectors,
)

F64 = torch.float64


def test_an_unknown_curvature_is_an_error() -> None:
    with opened(smooth_mlp(), "mse", rows()) as problem, pytest.raises(ValueError, match='unknown curvature "gauss"'):
        CurvatureOperator(problem, "gauss")  # type: ignore[arg-type]


def test_the_fisher_needs_a_likelihood() -> None:
    def own(outputs: Tensor, y: Tensor) -> Tensor:
        return outputs.square().sum(1)

    with (
        opened(smooth_mlp(), own, rows()) as problem,
        pytest.raises(ValueError, match="needs a loss that is a likelihood"),
    ):
        CurvatureOperator(problem, "fisher")


def test_a_matrix_is_its_own_operator() -> None:
    a = torch.randn(7, 7, generator=torch_generator(0, "a"), dtype=F64)
    a = a + a.T
    operator = MatrixOperator(a)
    assert torch.equal(dense(operator, rows=3), a)
    assert operator.num_products == 7
    assert operator(a[0]).shape == (7,)
    assert operator.num_products == 8


def test_a_dense_matrix_has_a_limit() -> None:
    with pytest.raises(ValueError, match="8,193 parameters is too large; allowed: at most 8,192"):
        dense(MatrixOperator(torch.empty(8193, 0)))


def test_products_leave_the_problem_as_it_was() -> None:
    def all_of(problem: Problem) -> list[Tensor]:
        return [problem.theta, *problem.fixed.values(), *(each for chunk in problem.chunks for each in chunk)]

    model = small_cnn()
    with opened(model, "cross_entropy", images(), chunk=4) as problem:
        before = [each.clone() for each in all_of(problem)]
        curvatures: tuple[Curvature, ...] = ("hessian", "ggn", "fisher", "empirical_fisher")
        for curvature in curvatures:
            operator = CurvatureOperator(problem, curvature, max_graph_bytes=1)
            operator(random_vectors(2, operator.size))
        assert all(torch.equal(one, other) for one, other in zip(before, all_of(problem), strict=True))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_a_solve_frees_its_graphs() -> None:
    """A graph that holds itself is not freed by anything: twenty operators of 16 MB would show."""
    model = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 64, 3))
    data = torch.ones(250, 1, 8, 8), torch.zeros(250, dtype=torch.long)

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    sizes = []
    for _ in range(20):
        with opened(model, "cross_entropy", data) as problem:
            operator = CurvatureOperator(problem)
            assert operator.graph_bytes(problem.chunks[0]) > 4e6
        sizes.append(resident())
    assert sizes[-1] - sizes[4] < 40.0
