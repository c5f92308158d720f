"""Extreme eigenvalues: against dense float64 spectra, their intervals and flags, and what is refused."""

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Batch
from overparam.measure.products.operators import CURVATURES, Curvature, CurvatureOperator, MatrixOperator, dense
from overparam.measure.spectrum.eigenvalues import top_eigenvalues
from overparam.measure.spectrum.extremes import Solve
from overparam.models.build import build
from overparam.models.losses import LossName, cross_entropy_per_example, per_example
from overparam.specs.models.mlp import MLP
from tests.support.classifiers import SMALL, exact, examples, known_matrix, small_mlp
from tests.support.matrices import ends, of_matrix, rotated, saddle
from tests.support.networks import rows, smooth_mlp

F64 = torch.float64
LOSSES: tuple[LossName, ...] = ("cross_entropy", "mse")
TIGHT: dict[str, Any] = {"tol": 1e-6, "max_products": 2000}


# Agreement with dense float64 eigenvalues


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", SMALL)
def test_both_ends_are_those_of_the_dense_matrix_at_every_scale(kind: str, loss: LossName) -> None:
    """Float32 products against a float64 spectrum, to 1e-5 of ‖H‖."""
    make, data = SMALL[kind]
    model = make()
    spectrum = exact(model, loss, data)
    assert len(spectrum) <= 1500
    for scale in (1e-8, 1e-4, 1.0, 1e4):

        def scaled(outputs: Tensor, y: Tensor, scale: float = scale) -> Tensor:
            return scale * per_example(loss, outputs, y)

        found = top_eigenvalues(model, scaled, data, 3, which="both", **TIGHT)
        expected, norm = scale * ends(spectrum, 3), scale * float(spectrum.abs().max())
        assert found.values.dtype is F64
        assert float((found.values - expected).abs().max()) <= 1e-5 * norm
        assert bool((found.lower <= expected).all())
        assert bool((expected <= found.upper).all())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("which", ["largest", "both"])
def test_a_solve_that_ends_by_itself_is_converged(which: Any, kind: str, loss: LossName) -> None:
    """Tolerances below float32's own rounding too: what is at the floor of rounding cannot be improved."""
    make, data = SMALL[kind]
    for tol in (1e-2, 1e-4, 1e-6):
        found = top_eigenvalues(make(), loss, data, 3, which=which, tol=tol, max_products=2000)
        assert found.num_products < 2000
        assert bool(found.converged.all())
        assert found.status == "converged"


def separable() -> Batch:
    generator = torch_generator(2, "separable")
    centers, y = 3.0 * torch.randn(3, 5, generator=generator), torch.arange(30) % 3
    return centers[y] + 0.5 * torch.randn(30, 5, generator=generator), y


def mean_loss(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float(cross_entropy_per_example(copy.deepcopy(model).double()(x.double()), y).mean())


@pytest.fixture(scope="module")
def trained() -> nn.Sequential:
    """Full-batch Adam until all 30 examples are right by a margin."""
    model = build(MLP(width=10, depth=3, activation="tanh"), (5,), 3, generator=torch_generator(0, "init"))
    assert isinstance(model, nn.Sequential)
    optimizer, (x, y) = torch.optim.Adam(model.parameters(), lr=1e-2), separable()
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.requires_grad_(True).zero_grad()
    return model


def at_loss(trained: nn.Sequential, target: float) -> nn.Sequential:
    """The trained network with last weights scaled until the mean loss is within 5 % of the target."""
    low, high = 1e-3, 1e3
    for _ in range(60):
        factor = math.sqrt(low * high)
        model = copy.deepcopy(trained)
        with torch.no_grad():
            list(model.parameters())[-2].mul_(factor)
        low, high = (factor, high) if mean_loss(model, *separable()) > target else (low, factor)
    assert mean_loss(model, *separable()) == pytest.approx(target, rel=0.05)
    return model


@pytest.mark.parametrize("target", [1e-2, 1e-4, 1e-6, 1e-8])
def test_trained_networks_have_the_spectrum_of_the_dense_matrix(trained: nn.Sequential, target: float) -> None:
    model = at_loss(trained, target)
    spectrum = exact(model, "cross_entropy", separable())
    norm = float(spectrum.abs().max())
    found = top_eigenvalues(model, "cross_entropy", separable(), 3, which="both", **TIGHT)
    assert float((found.values - ends(spectrum, 3)).abs().max()) <= 1e-5 * norm
    ggn = exact(model, "cross_entropy", separable(), "ggn")
    rounding = 1e-5 * float(ggn[-1])
    curvatures: tuple[Curvature, ...] = ("ggn", "fisher")
    for curvature in curvatures:
        gauss = top_eigenvalues(model, "cross_entropy", separable(), 3, curvature=curvature, **TIGHT)
        assert float((gauss.values - ggn.flip(0)[:3]).abs().max()) <= rounding


def pytorchs_own(outputs: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs, y, reduction="none")


@pytest.mark.parametrize("target", [1e-7, 1e-8])
def test_pytorchs_own_cross_entropy_loses_its_digits_there(trained: nn.Sequential, target: float) -> None:
    """Why the loss is taken in margin form: ‖H − H₆₄‖/‖H₆₄‖ is above 1e-3 for one and below 1e-5 for the other."""
    model = at_loss(trained, target)

    def relative_error(loss: Any) -> float:
        with opened(model, loss, separable()) as problem:
            found = dense(CurvatureOperator(problem)).double()
        with opened(model, "cross_entropy", separable(), dtype=F64) as problem:
            expected = dense(CurvatureOperator(problem))
        return float(torch.linalg.matrix_norm(found - expected, 2) / torch.linalg.matrix_norm(expected, 2))

    assert relative_error("cross_entropy") <= 1e-5
    assert relative_error(pytorchs_own) > 1e-3


@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_curvature_has_the_dense_spectrum(loss: LossName, curvature: Curvature) -> None:
    model, data = small_mlp("gelu"), examples(10)
    spectrum = torch.linalg.eigvalsh(known_matrix("gelu", loss, curvature))
    found = top_eigenvalues(model, loss, data, 4, curvature=curvature, **TIGHT)
    assert found.curvature == curvature
    assert float((found.values - spectrum.flip(0)[:4]).abs().max()) <= 1e-5 * float(spectrum.abs().max())
    found = top_eigenvalues(model, loss, data, 2, curvature=curvature, which="both", **TIGHT)
    assert float((found.values - ends(spectrum, 2)).abs().max()) <= 1e-5 * float(spectrum.abs().max())


# Repeated eigenvalues, pairs of opposite signs, saddles


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("which", ["largest", "smallest", "both"])
@pytest.mark.parametrize("k", range(1, 7))
def test_repeated_eigenvalues_come_with_their_multiplicity(k: int, which: Any, dtype: torch.dtype) -> None:
    """A Krylov space from one vector holds one copy; the passes after it find the others."""
    bulk = torch.linspace(-0.4, 0.5, 60, dtype=F64)
    values = torch.cat([torch.tensor([1.0] * 4 + [0.8] * 2 + [-0.7] * 3 + [-0.6] * 3, dtype=F64), bulk])
    operator = MatrixOperator(rotated(values, dtype=dtype))
    solve = Solve(operator, k, which, 1e-4, 5000, torch_generator(0, "start"))
    solve.run()
    assert solve.done
    expected = {1: values.sort(descending=True).values[:k], -1: values.sort().values[:k]}
    for side, pairs in solve.found.items():
        assert torch.tensor([pair.value for pair in pairs], dtype=F64).sub(expected[side]).abs().max() <= 1e-5
        vectors = torch.stack([pair.vector for pair in pairs]).double()
        assert float((vectors @ vectors.T - torch.eye(k, dtype=F64)).abs().max()) <= 1e-3
        assert all(solve.converged(side))


@given(
    multiplicities=st.lists(st.integers(1, 4), min_size=2, max_size=6),
    k=st.integers(1, 6),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=40)
def test_any_multiplicities_are_found(multiplicities: list[int], k: int, seed: int) -> None:
    """Also where k is more than the matrix is large, and where both ends hold the same pairs."""
    values = torch.cat([torch.full((m,), 1.0 - 0.3 * i, dtype=F64) for i, m in enumerate(multiplicities)])
    found = of_matrix(rotated(values, seed), k, which="both", tol=1e-5, max_products=5000)
    k = min(k, len(values))
    assert found.values.shape == (2, k)
    assert float((found.values - ends(values.sort().values, k)).abs().max()) <= 1e-6
    assert found.status == "converged"


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("which", ["largest", "both"])
@pytest.mark.parametrize("k", [1, 4, 5, 8])
def test_pairs_beyond_the_rank_have_value_zero(k: int, which: Any, dtype: torch.dtype) -> None:
    """What is left outside the pairs found is rounding, whose lack of symmetry means nothing."""
    values = torch.cat([torch.tensor([3.0, 2.0, 1.0, 0.5]), torch.zeros(56)]).double()
    found = of_matrix(rotated(values, dtype=dtype), k, which=which, tol=1e-4, max_products=2000)
    expected = ends(values.sort().values, k)
    assert float((found.values - (expected if which == "both" else expected[0])).abs().max()) <= 1e-5
    assert found.status == "converged"
    assert found.asymmetry <= 1e-4


def power_iteration(matrix: Tensor, generator: torch.Generator, tol: float = 1e-3, most: int = 100) -> float:
    """As it is often written: stop when the Rayleigh quotient changes by less than `tol`."""
    v = torch.randn(len(matrix), generator=generator).to(matrix.dtype)
    v, value = v / v.norm(), None
    for _ in range(most):
        w = matrix @ v
        now = float(w @ v)
        v = w / (w.norm() + 1e-6)
        if value is not None and abs(now - value) / (abs(value) + 1e-6) < tol:
            return now
        value = now
    return now


@pytest.mark.parametrize("rest", [0, 60], ids=["three values", "and a bulk"])
def test_a_pair_of_opposite_signs_is_told_apart(rest: int) -> None:
    """diag(1, −0.999, 0.2): power iteration stops anywhere between the two, Lanczos is right from every start."""
    values = torch.cat([torch.tensor([1.0, -0.999, 0.2]), torch.linspace(-0.2, 0.2, rest)])
    lanczos = power = 0
    for seed in range(80):
        matrix = rotated(values, seed, torch.float32)
        found = of_matrix(matrix, which="both", generator=torch_generator(seed, "start"))
        right = abs(float(found.values[0, 0]) - 1.0) <= 1e-3 and abs(float(found.values[1, 0]) + 0.999) <= 1e-3
        lanczos += right and found.status == "converged"
        power += abs(power_iteration(matrix, torch_generator(seed, "start")) - 1.0) <= 1e-2
    assert lanczos == 80
    assert power <= 20


def test_the_largest_eigenvalue_of_a_saddle_is_not_the_negative_one() -> None:
    matrix = saddle()
    largest, smallest = (of_matrix(matrix, which=which, tol=1e-5) for which in ("largest", "smallest"))
    both = of_matrix(matrix, which="both", tol=1e-5)
    assert float(largest.values[0]) == pytest.approx(2.0, abs=1e-6)
    assert float(smallest.values[0]) == pytest.approx(-5.0, abs=1e-6)
    assert both.values.flatten().tolist() == pytest.approx([2.0, -5.0], abs=1e-6)
    for found, row in ((largest, both.vectors[0, 0]), (smallest, both.vectors[1, 0])):
        assert abs(float(found.vectors[0] @ row)) == pytest.approx(1.0, abs=1e-6)


def test_ends_of_one_sign_keep_their_names() -> None:
    for sign in (1.0, -1.0):
        found = of_matrix(rotated(sign * torch.linspace(1.0, 3.0, 30)), which="both", tol=1e-4)
        assert found.values.flatten().tolist() == pytest.approx(sorted((3 * sign, sign), reverse=True), abs=1e-4)


def test_a_saddle_of_a_network_has_its_own_signs() -> None:
    """Negated losses turn the spectrum around."""
    model, data = small_mlp("gelu"), examples(10)
    spectrum = torch.linalg.eigvalsh(known_matrix("gelu", "cross_entropy"))

    def negated(outputs: Tensor, y: Tensor) -> Tensor:
        return -per_example("cross_entropy", outputs, y)

    found = top_eigenvalues(model, negated, data, 2, which="both", **TIGHT)
    assert abs(float(found.values[1, 1])) > 1.5 * float(found.values[0, 0]) > 0.0
    assert float((found.values - ends(-spectrum.flip(0), 2)).abs().max()) <= 1e-5 * float(spectrum.abs().max())


@pytest.mark.parametrize("size", [3, 6])
def test_parts_of_the_data_are_sharper_on_average(size: int) -> None:
    """`H` is the mean of the Hessians of equal parts and λmax is convex: a subset overstates it."""
    model, (x, y) = smooth_mlp(), rows(12)
    parts = zip(torch.split(x, size), torch.split(y, size), strict=True)
    found = [float(top_eigenvalues(model, "cross_entropy", part, tol=1e-8).values[0]) for part in parts]
    assert sum(found) / len(found) > 1.05 * float(top_eigenvalues(model, "cross_entropy", (x, y), tol=1e-8).values[0])
