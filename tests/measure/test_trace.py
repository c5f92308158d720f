"""Traces and Frobenius norms: exact moments over all probes, coverage at a fixed sample size, budgets."""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.estimate import Estimate, mean_with_interval
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Batch
from overparam.measure.products.operators import CURVATURES, Curvature, CurvatureOperator, MatrixOperator, dense
from overparam.measure.sharpness.relative_flatness import relative_flatness
from overparam.measure.spectrum.trace import Method, hessian_frobenius, hessian_trace, hutchinson, hutchpp, rademacher
from overparam.models.build import build
from overparam.specs.models.mlp import MLP
from tests.support.networks import Once, rows, shaken

F64 = torch.float64
Z = 4.5  # two-sided false alarm 7e-6


def symmetric(size: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    normal = torch.randn(size, size, generator=torch_generator(seed, "matrix"), dtype=F64)
    return ((normal + normal.T) / 2).to(dtype)


def low_rank(size: int, rank: int, seed: int = 0) -> Tensor:
    factor = torch.randn(rank, size, generator=torch_generator(seed, "factor"), dtype=F64)
    signs = torch.tensor([1.0, -0.5, 2.0, 0.25, -3.0, 1.5][:rank], dtype=F64)
    return factor.T @ (signs[:, None] * factor)


def all_signs(size: int) -> Tensor:
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=size)), dtype=F64)


def network() -> nn.Module:
    return build(MLP(width=8, depth=3, activation="tanh"), (5,), 3, generator=torch_generator(0, "init"))


def examples() -> Batch:
    generator = torch_generator(1, "data")
    return torch.randn(40, 5, generator=generator), torch.randint(0, 3, (40,), generator=generator)


# The estimators


def test_the_variance_of_a_probe_is_twice_the_off_diagonal_squares() -> None:
    """K25, over all 1,024 probes of size 10: mean tr(H), variance 2(‖H‖²_F − Σ h_ii²); Hutchinson at 4,000 probes."""
    matrix, signs = symmetric(10), all_signs(10)
    samples = ((signs @ matrix) * signs).sum(1)
    variance = 2.0 * float(matrix.square().sum() - matrix.diagonal().square().sum())
    assert float(samples.mean()) == pytest.approx(float(matrix.trace()), rel=1e-12)
    assert float(samples.var(correction=0)) == pytest.approx(variance, rel=1e-12)

    count = 4000
    found = hutchinson(MatrixOperator(matrix), count, torch_generator(0, "probe"))
    assert abs(found.value - float(matrix.trace())) <= Z * math.sqrt(variance / count)
    kurtosis = float((samples - samples.mean()).pow(4).mean()) / variance**2
    assert abs(found.stderr**2 * count / variance - 1.0) <= Z * math.sqrt((kurtosis - 1.0) / count)
    assert found.num_products == count


def test_a_diagonal_matrix_needs_one_probe() -> None:
    """Its off-diagonal squares are 0."""
    found = hutchinson(MatrixOperator(torch.diag(torch.arange(5.0))), 2, torch_generator(0, "probe"))
    assert (found.value, found.stderr) == (10.0, 0.0)


def test_the_frobenius_estimator_is_unbiased() -> None:
    """E‖Hz‖² = ‖H‖²_F over all probes, and at 3,000 probes of a network's Hessian within Z standard errors."""
    matrix, signs = symmetric(10), all_signs(10)
    assert float((signs @ matrix).square().sum(1).mean()) == pytest.approx(float(matrix.square().sum()), rel=1e-12)
    model, data = network(), examples()
    with opened(model, "cross_entropy", data, dtype=F64) as problem:
        exact = float(dense(CurvatureOperator(problem)).square().sum())
    found = hessian_frobenius(model, "cross_entropy", data, max_products=3000)
    assert abs(found.value - exact) <= Z * found.stderr
    assert found.stderr <= 0.05 * exact
    assert found.num_products == 3000


@pytest.mark.parametrize("estimate", [hutchinson, hutchpp])
def test_means_over_seeds_are_unbiased(estimate: Callable[..., Estimate]) -> None:
    """The mean of 400 estimates of 30 products each within Z of its own standard error, which 400 values know well."""
    matrix = symmetric(50)
    values = torch.tensor(
        [estimate(MatrixOperator(matrix), 30, torch_generator(seed, "probe")).value for seed in range(400)], dtype=F64
    )
    assert abs(float(values.mean() - matrix.trace())) <= Z * float(values.std()) / math.sqrt(400)


@pytest.mark.parametrize("estimate", [hutchinson, hutchpp])
@pytest.mark.parametrize("kind", ["goe", "decaying"])
def test_intervals_cover_at_their_confidence(kind: str, estimate: Callable[..., Estimate]) -> None:
    """95 % over 400 seeds, within Z binomial standard deviations."""
    matrix = symmetric(50)
    if kind == "decaying":
        _, vectors = torch.linalg.eigh(matrix)
        matrix = (vectors * 0.9 ** torch.arange(50, dtype=F64)) @ vectors.T
    exact, covered = float(matrix.trace()), 0
    for seed in range(400):
        found = estimate(MatrixOperator(matrix), 30, torch_generator(seed, "probe"))
        covered += found.lower <= exact <= found.upper
    assert abs(covered / 400 - 0.95) <= Z * math.sqrt(0.95 * 0.05 / 400)


def test_hutchpp_is_exact_on_a_matrix_of_low_rank() -> None:
    """Rank 6, a third of 18: the subspace holds the matrix, nothing is left to estimate."""
    matrix = low_rank(100, 6)
    exact = float(matrix.trace())
    found = hutchpp(MatrixOperator(matrix), 18, torch_generator(0, "probe"))
    assert found.value == pytest.approx(exact, rel=1e-10)
    assert found.stderr <= 1e-10 * abs(exact)
    assert found.num_products == 18
    too_few = hutchpp(MatrixOperator(matrix), 15, torch_generator(0, "probe"))
    assert too_few.stderr > 1e-6 * abs(exact)


def test_hutchpp_spreads_less_than_hutchinson_where_few_eigenvalues_dominate() -> None:
    values = torch.cat([torch.tensor([50.0, 30.0, 20.0, 10.0], dtype=F64), 0.1 * torch.ones(96, dtype=F64)])
    _, vectors = torch.linalg.eigh(symmetric(100))
    matrix = (vectors * values) @ vectors.T
    spread = {
        estimate.__name__: torch.tensor(
            [estimate(MatrixOperator(matrix), 30, torch_generator(seed, "probe")).value for seed in range(40)]
        ).std()
        for estimate in (hutchinson, hutchpp)
    }
    assert spread["hutchpp"] < 0.01 * spread["hutchinson"]


def test_a_small_matrix_is_measured_exactly() -> None:
    matrix = symmetric(12)
    found = hutchpp(MatrixOperator(matrix), 18, torch_generator(0, "probe"))
    assert found.value == pytest.approx(float(matrix.trace()), rel=1e-12)
    assert found.stderr == 0.0 and 0.0 < found.upper - found.value <= 1e-12
    assert found.num_products == 12


def test_the_zero_matrix_has_trace_zero() -> None:
    for estimate in (hutchinson, hutchpp):
        found = estimate(MatrixOperator(torch.zeros(50, 50)), 12, torch_generator(0, "probe"))
        assert (found.value, found.stderr) == (0.0, 0.0)


class Counting(MatrixOperator):
    """Counts rows on its own."""

    rows = 0

    def __call__(self, vectors: Tensor) -> Tensor:
        self.rows += 1 if vectors.ndim == 1 else len(vectors)
        return super().__call__(vectors)


@given(size=st.integers(1, 60), budget=st.integers(6, 50), plus=st.booleans())
@settings(max_examples=60)
def test_the_budget_is_never_exceeded(size: int, budget: int, plus: bool) -> None:
    operator = Counting(symmetric(size))
    found = (hutchpp if plus else hutchinson)(operator, budget, torch_generator(0, "probe"))
    assert operator.rows == operator.num_products == found.num_products <= budget
    assert found.num_products >= min(size, budget - 2)
    assert found.lower <= found.value <= found.upper


def test_probes_are_signs() -> None:
    probes = rademacher(MatrixOperator(torch.zeros(30, 30, dtype=F64)), 500, torch_generator(0, "probe"))
    assert probes.shape == (500, 30)
    assert probes.dtype is F64
    assert set(probes.flatten().tolist()) == {-1.0, 1.0}
    assert abs(float(probes.mean())) <= Z / math.sqrt(500 * 30)
    correlations = probes.T @ probes / 500 - torch.eye(30, dtype=F64)
    assert float(correlations.abs().max()) <= 6.0 / math.sqrt(500)


@given(samples=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20), offset=st.floats(-1e6, 1e6))
@settings(max_examples=50)
def test_intervals_are_students(samples: list[float], offset: float) -> None:
    found = mean_with_interval(samples, 7, offset)
    values = torch.tensor(samples, dtype=F64)
    stderr = float(values.std()) / math.sqrt(len(samples))
    half = float(stats.t.ppf(0.975, len(samples) - 1)) * stderr
    assert found.value == pytest.approx(float(values.mean()) + offset, abs=1e-6)
    assert found.stderr == pytest.approx(stderr, abs=1e-6)
    assert found.upper - found.value == pytest.approx(half, abs=1e-5)
    assert found.value - found.lower == pytest.approx(half, abs=1e-5)
    assert (found.status, found.num_products) == ("ok", 7)


def test_rounding_widens_the_interval_by_its_formula() -> None:
    """`8ε‖z‖‖Az‖` per probe: 8ε·10·3 for A = 3·1 of size 100, and 8ε Σ 3 over its diagonal."""
    operator, unit = MatrixOperator(3.0 * torch.eye(100)), 8.0 * float(torch.finfo(torch.float32).eps)
    probed = hutchinson(operator, 10, torch_generator(0, "probe"))
    exact = hutchpp(operator, 150, torch_generator(0, "probe"))
    for found in (probed, exact):
        assert (found.value, found.stderr) == (300.0, 0.0)
        assert found.upper - found.value == pytest.approx(unit * 300.0) == pytest.approx(found.value - found.lower)
    inside = hutchpp(operator, 60, torch_generator(0, "probe"))
    assert inside.upper - inside.value >= unit * 3.0 * (20 + 80) * 0.99
    known = mean_with_interval([1.0, 2.0, 3.0], 3)
    wider = mean_with_interval([1.0, 2.0, 3.0], 3, rounding=0.5)
    assert (wider.stderr, wider.upper - known.upper, known.lower - wider.lower) == (known.stderr, 0.5, 0.5)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_float32_intervals_hold_the_float64_trace_where_all_is_measured(loss: Any) -> None:
    """On 40 networks: nothing is drawn, rounding is the only error, and without it in the interval none would do."""
    for seed in range(40):
        generator = torch_generator(seed, "network")
        width, count = (int(torch.randint(low, high, (1,), generator=generator)) for low, high in ((2, 6), (5, 200)))
        model = build(MLP(width=width, depth=2, activation=("tanh", "relu")[seed % 2]), (4,), 3, generator=generator)
        x = torch.randn(count, 4, generator=generator)
        data = (x, torch.randint(0, 3, (count,), generator=generator))
        with opened(model, loss, data, dtype=F64) as problem:
            exact = float(dense(CurvatureOperator(problem)).trace())
        found = hessian_trace(model, loss, data)
        assert found.num_products == problem.num_parameters
        assert found.lower <= exact <= found.upper, seed
        assert found.upper - found.lower <= 1e-4 * abs(exact), seed


def test_one_sample_has_no_interval() -> None:
    found = mean_with_interval([2.0], 1)
    assert (found.value, found.lower, found.upper) == (2.0, -math.inf, math.inf)
    assert math.isnan(found.stderr)


class Elsewhere(Tensor):
    """As on a device without float64: only `.cpu()` gives a tensor that has it."""

    def double(self) -> Tensor:
        raise TypeError("this device has no float64")

    def cpu(self) -> Tensor:  # type: ignore[override]
        return self.as_subclass(Tensor)


@pytest.mark.parametrize("estimate", [hutchinson, hutchpp])
@pytest.mark.parametrize("size", [10, 50])
def test_results_leave_a_device_before_they_become_float64(size: int, estimate: Callable[..., Estimate]) -> None:
    matrix = symmetric(size, dtype=torch.float32)
    found, there = (
        estimate(MatrixOperator(each), 18, torch_generator(0, "probe"))
        for each in (matrix, matrix.as_subclass(Elsewhere))
    )
    assert found == there


# On models


def test_estimates_say_that_products_were_differences() -> None:
    lacking, whole = (shaken(nn.Sequential(nn.Linear(4, 5), middle, nn.Linear(5, 3))) for middle in (Once(), nn.Tanh()))
    measures: list[Callable[..., Estimate]] = [hessian_trace, hessian_frobenius, partial(relative_flatness, layer="0")]
    for measure in measures:
        fallback = measure(lacking, "cross_entropy", rows()).fallback
        assert fallback is not None and "differentiable" in fallback
        assert measure(whole, "cross_entropy", rows()).fallback is None


def test_a_squared_frobenius_norm_holds_its_rounding() -> None:
    """A last bias under mse: `‖1‖_F² = 3`, whatever the probe."""
    found = hessian_frobenius(network(), "mse", examples(), params="5.bias")
    assert found.stderr <= 1e-12 and found.lower < 3.0 < found.upper < 3.0 + 1e-4


@pytest.mark.parametrize("method", ["hutchpp", "hutchinson"])
@pytest.mark.parametrize("curvature", CURVATURES)
def test_traces_of_a_network_are_those_of_its_matrix(curvature: Curvature, method: Any) -> None:
    model, data = network(), examples()
    with opened(model, "cross_entropy", data, dtype=F64) as problem:
        exact = float(dense(CurvatureOperator(problem, curvature)).trace())
    found = hessian_trace(model, "cross_entropy", data, curvature=curvature, max_products=90, method=method)
    assert found.num_products == 90
    assert abs(found.value - exact) <= Z * found.stderr
    assert found.lower < found.value < found.upper
    again = hessian_trace(model, "cross_entropy", data, curvature=curvature, max_products=90, method=method)
    assert again == found
    other = hessian_trace(
        model, "cross_entropy", data, curvature=curvature, max_products=90, method=method,
        generator=torch_generator(1, "trace"),
    )  # fmt: skip
    assert other != found


def test_only_chosen_parameters_count() -> None:
    model, data = network(), examples()
    with opened(model, "cross_entropy", data, dtype=F64) as problem:
        matrix = dense(CurvatureOperator(problem))
    found = hessian_trace(model, "cross_entropy", data, params="5", max_products=60)  # 27 parameters: exact
    assert found.value == pytest.approx(float(matrix[-27:, -27:].trace()), rel=1e-5)
    assert found.num_products == 27
    square = hessian_frobenius(model, "cross_entropy", data, params="5", max_products=1000)
    assert abs(square.value - float(matrix[-27:, -27:].square().sum())) <= Z * square.stderr


def test_an_unused_parameter_adds_nothing() -> None:
    class Ignoring(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused, self.used = nn.Linear(3, 3), network()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.used(x)
            return out

    model, data = Ignoring(), examples()
    with opened(model.used, "cross_entropy", data, dtype=F64) as problem:
        matrix = dense(CurvatureOperator(problem))
    methods: tuple[Method, ...] = ("hutchpp", "hutchinson")
    for method in methods:
        found = hessian_trace(model, "cross_entropy", data, method=method, unused="hold")
        assert abs(found.value - float(matrix.trace())) <= Z * found.stderr
    square = hessian_frobenius(model, "cross_entropy", data, unused="hold")
    assert abs(square.value - float(matrix.square().sum())) <= Z * square.stderr


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"method": "xtrace"}, 'unknown method "xtrace"; allowed: "hutchpp", "hutchinson"'),
        ({"max_products": 5}, "max_products = 5; allowed: at least 6"),
        ({"max_products": 1, "method": "hutchinson"}, "max_products = 1; allowed: at least 2"),
        ({"curvature": "fischer"}, 'unknown curvature "fischer"'),
        ({"params": "body"}, 'under "body"'),
        ({"loss": "hinge"}, 'unknown loss "hinge"'),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_errors(options: dict[str, Any], match: str) -> None:
    model = network()
    model.train()
    with pytest.raises(ValueError, match=match):
        hessian_trace(model, options.pop("loss", "cross_entropy"), examples(), **options)
    assert all(module.training for module in model.modules())


def test_a_frobenius_norm_needs_two_probes() -> None:
    with pytest.raises(ValueError, match="max_products = 1; allowed: at least 2"):
        hessian_frobenius(network(), "cross_entropy", examples(), max_products=1)
