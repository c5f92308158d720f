"""The whole spectrum by quadrature, against dense spectra."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Batch
from overparam.measure.products.operators import CURVATURES, Curvature, CurvatureOperator, MatrixOperator, dense
from overparam.measure.spectrum.density import Density, quadrature, spectral_density
from overparam.models.build import build
from overparam.specs.models.mlp import MLP
from tests.support.matrices import rotated
from tests.support.networks import Once, rows, shaken

F64 = torch.float64
Z = 4.5  # two-sided false alarm 7e-6


def bulk_and_outliers(size: int = 300) -> Tensor:
    """As Hessians have it: most eigenvalues near 0, a few far away, some negative."""
    normal = torch.randn(size, generator=torch_generator(0, "values"), dtype=F64)
    values = 0.02 * normal.abs() ** 3 * normal.sign()
    values[:5] = torch.tensor([1.0, 2.0, 3.0, 5.0, 10.0])
    return values.sort().values


def measured(values: Tensor, steps: int = 60, probes: int = 8, seed: int = 0, dtype: torch.dtype = F64) -> Density:
    return quadrature(MatrixOperator(rotated(values, dtype=dtype)), steps, probes, torch_generator(seed, "probe"))


def network() -> nn.Module:
    return build(MLP(width=8, depth=3, activation="tanh"), (5,), 3, generator=torch_generator(0, "init"))


def examples() -> Batch:
    generator = torch_generator(1, "data")
    return torch.randn(40, 5, generator=generator), torch.randint(0, 3, (40,), generator=generator)


# Nodes and weights


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_weights_are_a_measure(dtype: torch.dtype) -> None:
    found = measured(bulk_and_outliers(), dtype=dtype)
    assert found.nodes.shape == found.weights.shape == (8, 60)
    assert float(found.weights.min()) >= 0.0
    assert np.allclose(found.weights.sum(1), 1.0, rtol=1e-12)
    assert (np.diff(found.nodes, axis=1) >= 0.0).all()
    assert (found.num_parameters, found.num_products) == (300, 480)


@given(size=st.integers(1, 25), steps=st.integers(1, 30), probes=st.integers(1, 3), seed=st.integers(0, 10**6))
@settings(max_examples=40)
def test_moments_are_those_of_the_probes(size: int, steps: int, probes: int, seed: int) -> None:
    """Σ w θʲ = vᵀHʲv for every probe v and j < 2·steps; probes drawn anew from the same stream."""
    values = torch.rand(size, generator=torch_generator(seed, "values"), dtype=F64) * 2 - 1
    matrix, generator = rotated(values, seed), torch_generator(seed, "probe")
    found = quadrature(MatrixOperator(matrix), steps, probes, torch_generator(seed, "probe"))
    assert found.num_products == probes * min(steps, size)
    for nodes, weights in zip(found.nodes, found.weights, strict=True):
        v = torch.randn(size, generator=generator, dtype=F64)
        v = v / v.norm()
        for j in range(2 * min(steps, size, 6)):
            expected = float(v @ torch.linalg.matrix_power(matrix, j) @ v)
            assert float((weights * nodes**j).sum()) == pytest.approx(expected, abs=1e-10)


def test_an_invariant_subspace_ends_a_probe() -> None:
    """Two distinct eigenvalues: two nodes carry all weight, the last is repeated with weight 0."""
    values = torch.tensor([1.0] * 30 + [4.0] * 10, dtype=F64)
    found = measured(values, steps=20, probes=6)
    assert found.nodes.shape == (6, 20)
    assert np.allclose(found.nodes[:, 0], 1.0)
    assert np.allclose(found.nodes[:, 1:], 4.0)
    assert (found.weights[:, 2:] == 0.0).all()
    assert np.allclose(found.weights.sum(1), 1.0)
    assert found.num_products == 12
    assert found.cdf([0.9, 3.9, 4.1]).tolist() == pytest.approx([0.0, float(found.weights[:, 0].mean()), 1.0])


def test_a_matrix_of_one_eigenvalue_is_known_at_once() -> None:
    found = measured(torch.full((40,), 2.5, dtype=F64), steps=10, probes=2)
    assert np.allclose(found.nodes, 2.5)
    assert found.trace().value == pytest.approx(100.0)
    assert found.trace().stderr == pytest.approx(0.0, abs=1e-10)


# Distribution


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20)
def test_the_cdf_climbs_from_0_to_1(seed: int) -> None:
    values = torch.randn(60, generator=torch_generator(seed, "values"), dtype=F64)
    found = measured(values, steps=15, probes=3, seed=seed)
    x = np.linspace(-5.0, 5.0, 400)
    cdf = found.cdf(x)
    assert cdf.shape == x.shape
    assert (np.diff(cdf) >= 0.0).all()
    assert cdf[0] == 0.0
    assert cdf[-1] == pytest.approx(1.0, abs=1e-12)
    lower, upper = found.cdf_band(x)
    assert ((lower >= 0.0) & (lower <= cdf + 1e-15) & (cdf <= upper + 1e-12) & (upper <= 1.0)).all()
    narrow = found.cdf_band(x, confidence=0.5)
    assert (narrow[0] >= lower).all() and (narrow[1] <= upper).all()
    assert float(found.cdf(0.3)) == float(found.cdf([0.3])[0])
    assert found.cdf(np.zeros((2, 3))).shape == (2, 3)


def test_the_cdf_counts_a_node_at_its_place() -> None:
    found = Density(np.array([[1.0, 2.0]]), np.array([[0.25, 0.75]]), 8, "hessian", 2)
    assert found.cdf([0.5, 1.0, 1.5, 2.0, 3.0]).tolist() == [0.0, 0.25, 0.25, 1.0, 1.0]


@pytest.mark.parametrize(("steps", "share"), [(40, 0.5), (80, 0.9)])
@pytest.mark.parametrize("kind", ["uniform", "bulk and outliers"])
def test_the_band_holds_the_true_cdf(kind: str, steps: int, share: float) -> None:
    """Pointwise 95 % of the probes' error, over 20 starts with 8 probes each: what is seen if steps use the space up.
    With fewer the quadrature of a step function has an error of its own where eigenvalues are crowded, which the band
    leaves out; it then holds the CDF at most points.
    """
    values = (bulk_and_outliers(80) if kind != "uniform" else torch.linspace(-1.0, 2.0, 80, dtype=F64)).numpy()
    operator = MatrixOperator(rotated(torch.from_numpy(values)))
    x = np.quantile(values, np.linspace(0.02, 0.98, 25))
    true = np.searchsorted(values, x, side="right") / len(values)
    shares = []
    for seed in range(20):
        lower, upper = quadrature(operator, steps, 8, torch_generator(seed, "probe")).cdf_band(x)
        shares.append(((lower <= true) & (true <= upper)).mean())
    assert np.mean(shares) >= share


def test_the_mean_over_many_probes_is_the_true_cdf() -> None:
    values = torch.linspace(-1.0, 2.0, 40, dtype=F64)
    found = measured(values, steps=40, probes=200)
    x = values.numpy()[::4] + 1e-6
    true = np.searchsorted(values.numpy(), x, side="right") / 40
    spread = found._cdfs(x).std(0, ddof=1) / math.sqrt(200)
    assert (np.abs(found.cdf(x) - true) <= Z * spread + 1e-9).all()


@pytest.mark.parametrize("bandwidth", [0.01, 0.1, 1.0])
def test_the_density_integrates_to_1(bandwidth: float) -> None:
    found = measured(bulk_and_outliers(), steps=40, probes=3)
    x = np.linspace(-6.0, 17.0, 20_001)
    density = found.density(x, bandwidth)
    assert (density >= 0.0).all()
    assert float(np.trapezoid(density, x)) == pytest.approx(1.0, abs=1e-6)
    mean = float(np.trapezoid(density * x, x))  # the kernel has mean 0
    assert mean == pytest.approx(float((found.weights * found.nodes).sum() / 3), abs=1e-6)
    assert found.density(0.5, bandwidth).shape == ()


def test_the_density_is_that_of_the_spectrum() -> None:
    """Against the same Gaussian on the true eigenvalues."""
    values = torch.randn(200, generator=torch_generator(0, "values"), dtype=F64)
    found = measured(values, steps=30, probes=150)
    x = np.linspace(-2.5, 2.5, 21)
    z = (x[:, None] - values.numpy()) / 0.3
    true = np.exp(-0.5 * z**2).mean(1) / (0.3 * math.sqrt(2 * math.pi))
    assert np.abs(found.density(x, 0.3) - true).max() <= 0.02


# Sums over the spectrum


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_sums_over_the_spectrum_are_those_of_the_dense_one(scale: float) -> None:
    """Each within Z standard errors at 200 probes, and the standard errors small enough to mean something."""
    values = scale * bulk_and_outliers(60)
    found = measured(values, steps=30, probes=200)
    positive = values.clamp_min(0.0)
    for c in (0.01 * scale, 0.3 * scale):
        dimension, true = found.effective_dimension(c), float((positive / (positive + c)).sum())
        assert abs(dimension.value - true) <= Z * dimension.stderr
        assert dimension.stderr <= 0.05 * true
    trace, frobenius = found.trace(), found.frobenius()
    assert abs(trace.value - float(values.sum())) <= Z * trace.stderr
    assert abs(frobenius.value - float(values.square().sum())) <= Z * frobenius.stderr
    assert trace.stderr <= 0.1 * float(values.sum())
    assert trace.num_products == 200 * 30


def test_intervals_of_the_trace_cover_at_their_confidence() -> None:
    """95 % over 200 starts with 8 probes each, within Z binomial standard deviations."""
    values = torch.randn(40, generator=torch_generator(0, "values"), dtype=F64)
    operator, covered = MatrixOperator(rotated(values)), 0
    for seed in range(200):
        found = quadrature(operator, 5, 8, torch_generator(seed, "probe")).trace()
        covered += found.lower <= float(values.sum()) <= found.upper
    assert abs(covered / 200 - 0.95) <= Z * math.sqrt(0.95 * 0.05 / 200)


def test_the_effective_dimension_lies_between_0_and_the_number_of_positive_eigenvalues() -> None:
    values = bulk_and_outliers(100)
    found = measured(values, steps=100, probes=4)
    dimensions = [found.effective_dimension(c).value for c in (1e-8, 1e-3, 0.1, 10.0, 1e6)]
    assert dimensions == sorted(dimensions, reverse=True)
    assert 0.0 <= dimensions[-1] < 0.01
    assert dimensions[0] <= 100.0


# On models


@pytest.mark.parametrize("curvature", CURVATURES)
def test_the_spectrum_of_a_network_is_that_of_its_matrix(curvature: Curvature) -> None:
    model, data = network(), examples()
    with opened(model, "cross_entropy", data, dtype=F64) as problem:
        values = torch.linalg.eigvalsh(dense(CurvatureOperator(problem, curvature)))
    found = spectral_density(model, "cross_entropy", data, steps=40, probes=6, curvature=curvature)
    assert (found.curvature, found.num_parameters) == (curvature, 147)
    assert found.num_products == 240
    assert np.abs(found.nodes.max(1) / float(values[-1]) - 1.0).max() <= 1e-5
    trace, frobenius = found.trace(), found.frobenius()
    assert abs(trace.value - float(values.sum())) <= 6.0 * trace.stderr  # Student at 5 degrees of freedom
    assert abs(frobenius.value - float(values.square().sum())) <= 6.0 * frobenius.stderr


def test_the_same_call_gives_the_same_density() -> None:
    model, data = network(), examples()
    once, again = (spectral_density(model, "cross_entropy", data, steps=10, probes=2) for _ in range(2))
    assert np.array_equal(once.nodes, again.nodes)
    assert np.array_equal(once.weights, again.weights)
    other = spectral_density(model, "cross_entropy", data, steps=10, probes=2, generator=torch_generator(1, "spectrum"))
    assert not np.array_equal(once.nodes, other.nodes)


def test_only_chosen_parameters_count() -> None:
    found = spectral_density(network(), "cross_entropy", examples(), params="5")
    assert (found.num_parameters, found.nodes.shape) == (27, (4, 27))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"steps": 0}, "steps = 0, probes = 4; allowed: both at least 1"),
        ({"probes": 0}, "steps = 80, probes = 0"),
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
        spectral_density(model, options.pop("loss", "cross_entropy"), examples(), **options)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_scales_must_be_positive(value: float) -> None:
    found = measured(bulk_and_outliers(50), steps=5, probes=2)
    with pytest.raises(ValueError, match="bandwidth = .*; allowed: a positive number"):
        found.density([0.0], value)
    with pytest.raises(ValueError, match="c = .*; allowed: a positive number"):
        found.effective_dimension(value)


def test_a_band_needs_two_probes() -> None:
    with pytest.raises(ValueError, match="at least two probes"):
        measured(bulk_and_outliers(50), steps=5, probes=1).cdf_band([0.0])


def test_a_density_says_that_products_were_differences() -> None:
    lacking, whole = (shaken(nn.Sequential(nn.Linear(4, 5), middle, nn.Linear(5, 3))) for middle in (Once(), nn.Tanh()))
    found = spectral_density(lacking, "cross_entropy", rows(), steps=4, probes=2)
    assert found.fallback is not None and "differentiable" in found.fallback
    for estimate in (found.trace(), found.frobenius(), found.effective_dimension(1.0)):
        assert estimate.fallback == found.fallback
    assert spectral_density(whole, "cross_entropy", rows(), steps=4, probes=2).fallback is None
    assert measured(bulk_and_outliers(), steps=3).fallback is None


def test_products_that_are_not_symmetric_are_refused() -> None:
    matrix = rotated(bulk_and_outliers(40))
    matrix[0] += 3.0
    with pytest.raises(ValueError, match="not symmetric"):
        quadrature(MatrixOperator(matrix), 20, 2, torch_generator(0, "probe"))
