"""Extreme eigenvalues: against dense float64 spectra, their intervals and flags, and what is refused."""

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable

from overparam.measure.eigenvalues import Eigenvalues, top_eigenvalues
from overparam.measure.losses import LossName, cross_entropy_per_example, per_example
from overparam.measure.operators import CURVATURES, Curvature, CurvatureOperator, MatrixOperator, dense
from overparam.measure.problem import Batch, opened
from overparam.measure.solve import Solve
from overparam.models.build import build
from overparam.rng.torch_generators import torch_generator
from overparam.specs.run import MLP

F64 = torch.float64
LOSSES: tuple[LossName, ...] = ("cross_entropy", "mse")
TIGHT: dict[str, Any] = {"tol": 1e-6, "max_products": 2000}


def rotated(values: Tensor, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    """A symmetric matrix with these eigenvalues in a random basis."""
    square = torch.randn(len(values), len(values), generator=torch_generator(seed, "basis"), dtype=F64)
    q = torch.linalg.qr(square)[0]
    matrix: Tensor = (q * values.double()) @ q.T
    return ((matrix + matrix.T) / 2).to(dtype)


class Form(nn.Module):
    """Any symmetric matrix A as the Hessian of a loss: ½θᵀAθ, the same for every example."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(len(matrix), dtype=matrix.dtype))
        self.matrix = matrix

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.theta.expand(len(x), -1)
        return out

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        found: Tensor = 0.5 * ((outputs @ self.matrix) * outputs).sum(1)
        return found


def of_matrix(matrix: Tensor, k: int = 1, **options: Any) -> Eigenvalues:
    form = Form(matrix)
    return top_eigenvalues(form, form.loss, (torch.zeros(1, 1), torch.zeros(1)), k, **options)


def exact(model: nn.Module, loss: Any, data: Batch, curvature: Curvature = "hessian") -> Tensor:
    """All eigenvalues in float64, ascending."""
    with opened(model, loss, data, dtype=F64) as problem:
        found: Tensor = torch.linalg.eigvalsh(dense(CurvatureOperator(problem, curvature)))
        return found


def ends(spectrum: Tensor, k: int) -> Tensor:
    """Rows: the k largest and the k smallest, each descending."""
    return torch.stack([spectrum.flip(0)[:k], spectrum[:k].flip(0)])


def small_mlp(activation: Any = "relu") -> nn.Module:
    return build(MLP(width=24, depth=3, activation=activation), (10,), 4, generator=torch_generator(0, "init"))


def small_cnn() -> nn.Module:
    generator = torch_generator(0, "cnn")
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 4))
    with torch.no_grad():
        for value in model.parameters():
            scale = value[0].numel() ** -0.5 if value.ndim > 1 else 0.3
            value.copy_((value.ndim == 1) * 0.5 + scale * torch.randn(value.shape, generator=generator))
        for _ in range(5):
            model(torch.randn(64, 1, 8, 8, generator=generator))
    return model


def examples(*shape: int, count: int = 60, classes: int = 4) -> Batch:
    generator = torch_generator(1, "data")
    x = torch.randn(count, *shape, generator=generator)
    return x, torch.randint(0, classes, (count,), generator=generator)


@functools.cache
def known_matrix(activation: Any, loss: LossName, curvature: Curvature = "hessian") -> Tensor:
    """The float64 curvature of `small_mlp` on its examples."""
    with opened(small_mlp(activation), loss, examples(10), dtype=F64) as problem:
        return dense(CurvatureOperator(problem, curvature))


SMALL: dict[str, tuple[Callable[[], nn.Module], Batch]] = {
    "mlp": (small_mlp, examples(10)),
    "cnn": (small_cnn, examples(1, 8, 8)),
}


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
    for seed in range(200):
        matrix = rotated(values, seed, torch.float32)
        found = of_matrix(matrix, which="both", generator=torch_generator(seed, "start"))
        right = abs(float(found.values[0, 0]) - 1.0) <= 1e-3 and abs(float(found.values[1, 0]) + 0.999) <= 1e-3
        lanczos += right and found.status == "converged"
        power += abs(power_iteration(matrix, torch_generator(seed, "start")) - 1.0) <= 1e-2
    assert lanczos == 200
    assert power <= 50


def saddle(size: int = 40) -> Tensor:
    """λmin = −5 is larger in size than λmax = 2."""
    return rotated(torch.cat([torch.tensor([-5.0, 2.0]), torch.linspace(-1.0, 1.0, size - 2)]))


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


# Intervals


def random_spectrum(index: int, generator: torch.Generator) -> tuple[str, Tensor]:
    """A problem of one of several kinds; sizes 5 … 200."""
    kinds = ("goe", "low rank and noise", "outlier", "geometric", "equal", "two clusters", "uniform")
    kind = kinds[index % len(kinds)]
    size = int(torch.randint(5, 201, (1,), generator=generator))
    normal = torch.randn(size, size, generator=generator, dtype=F64)
    if kind == "goe":
        return kind, torch.linalg.eigvalsh((normal + normal.T) / math.sqrt(2 * size))
    values = {
        "low rank and noise": torch.cat([3.0 * normal[0, :3], 1e-3 * normal[1, 3:]]),
        "outlier": torch.cat([0.1 * normal[0, 1:], torch.tensor([1.0 + float(normal[1, 0]) ** 2], dtype=F64)]),
        "geometric": torch.sign(normal[0]) * 0.7 ** torch.arange(size, dtype=F64),
        "equal": torch.full((size,), float(normal[0, 0]), dtype=F64),
        "two clusters": torch.sign(normal[0]) + 1e-2 * normal[1],
        "uniform": torch.linspace(-1.0, 1.0, size, dtype=F64) * float(normal[0, 0]),
    }
    return kind, values[kind].sort().values


def test_intervals_of_both_ends_at_once_cover_in_95_of_100_problems() -> None:
    """500 problems, early stops included; an infinite bound is no miss, and from 8 products on there is none."""
    generator = torch_generator(0, "coverage")
    covered, finite, early = 0, 0, 0
    for index in range(500):
        _, values = random_spectrum(index, generator)
        dtype = (torch.float32, F64)[index // 7 % 2]
        matrix = rotated(values, index, dtype)
        most = int(torch.randint(3, 31, (1,), generator=generator))
        found = of_matrix(matrix, which="both", max_products=most, generator=torch_generator(index, "start"))
        spectrum = torch.linalg.eigvalsh(matrix.double())
        truth = torch.stack([spectrum[-1], spectrum[0]])
        covered += bool(((found.lower[:, 0] <= truth) & (truth <= found.upper[:, 0])).all())
        finite += bool(found.lower.isfinite().all() and found.upper.isfinite().all())
        early += found.status == "max_products"
        assert found.num_products <= most
        assert bool(found.certified.all())
        assert found.confidence == 0.95
        assert found.num_products < 8 or bool(found.upper.isfinite().all())
        rounding = 20 * float(torch.finfo(dtype).eps) * math.sqrt(most) * float(spectrum.abs().max())
        assert float(found.values[0, 0]) <= float(truth[0]) + rounding  # Ritz values are bounds from inside
        assert float(found.values[1, 0]) >= float(truth[1]) - rounding
        assert float(found.lower[0, 0]) <= float(truth[0])
        assert float(found.upper[1, 0]) >= float(truth[1])
    assert covered >= 475
    assert 300 < finite < 500
    assert early > 150


def test_an_early_stop_says_so() -> None:
    matrix = rotated(torch.linspace(-1.0, 1.0, 200))
    found = of_matrix(matrix, which="both", tol=1e-4, max_products=12)
    assert found.status == "max_products"
    assert found.num_products == 12
    assert not bool(found.converged.any())
    assert float(found.residuals.min()) > 1e-4
    assert float(found.lower[0, 0]) <= 1.0 <= float(found.upper[0, 0]) < math.inf
    assert -math.inf < float(found.lower[1, 0]) <= -1.0 <= float(found.upper[1, 0])


def test_a_stop_before_anything_is_certain_has_infinite_intervals() -> None:
    found = of_matrix(rotated(torch.linspace(-1.0, 1.0, 200)), which="both", max_products=3)
    assert found.status == "max_products"
    assert float(found.upper[0, 0]) == math.inf
    assert float(found.lower[1, 0]) == -math.inf
    assert float(found.lower[0, 0]) <= 1.0
    assert float(found.upper[1, 0]) >= -1.0


@pytest.mark.parametrize("which", ["largest", "smallest", "both"])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_fewer_products_than_pairs_leave_nan(most: int, which: Any) -> None:
    found = of_matrix(rotated(torch.linspace(-1.0, 1.0, 50)), 5, which=which, max_products=most)

    def rows(column: Tensor) -> Tensor:
        return column if which == "both" else column[None]

    values = rows(found.values)
    assert values.shape[1] == 5
    assert bool((values.isfinite().sum(1) == most).all())
    missing = values.isnan()
    assert bool(rows(found.residuals)[missing].isinf().all())
    assert bool((rows(found.lower)[missing] == -math.inf).all())
    assert bool((rows(found.upper)[missing] == math.inf).all())
    assert not bool(rows(found.converged).any())
    assert found.vectors.shape == (*found.values.shape, 50)
    assert found.status == "max_products"


def test_products_spent_between_two_passes_keep_what_was_found() -> None:
    values = torch.cat([torch.tensor([1.0, 1.0, 1.0]), torch.linspace(-0.1, 0.1, 97)])
    matrix = rotated(values)
    products = of_matrix(matrix, 3, tol=1e-3).num_products
    for most in range(8, products + 1):
        found = of_matrix(matrix, 3, tol=1e-3, max_products=most)
        assert found.num_products == most
        assert abs(float(found.values[0]) - 1.0) <= 0.05
        assert (found.status == "converged") == (most == products)


def test_certify_narrows_the_interval() -> None:
    """To ε/(1 − 2ε) of the spread, in the number of products that the theorem says."""
    values = torch.cat([torch.tensor([1.0, -0.5]), torch.linspace(-0.1, 0.1, 298)])
    wide = of_matrix(rotated(values), which="both")
    for share in (0.2, 0.06, 0.016):
        narrow = of_matrix(rotated(values), which="both", certify=share)
        width = (narrow.upper - narrow.lower)[:, 0]
        assert float(width.max()) <= 1.5 * share / (1 - 2 * share) + 1e-6
        assert narrow.status == "converged"
        assert float(narrow.lower[0, 0]) <= 1.0 + 1e-6 <= float(narrow.upper[0, 0]) + 2e-6
    assert narrow.num_products > wide.num_products
    assert float(width.max()) < float((wide.upper - wide.lower)[:, 0].max())


def test_inner_values_are_not_certified() -> None:
    found = of_matrix(saddle(), 3, which="both", tol=1e-4)
    assert found.certified.tolist() == [[True, False, False], [False, False, True]]
    for row, place in ((0, 1), (0, 2), (1, 0), (1, 1)):
        value, residual = float(found.values[row, place]), float(found.residuals[row, place])
        assert float(found.lower[row, place]) == value - residual
        assert float(found.upper[row, place]) == value + residual


# The record


@pytest.mark.parametrize("tol", [1e-1, 1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("which", ["largest", "smallest", "both"])
def test_vectors_have_the_stated_residuals(which: Any, tol: float) -> None:
    """‖Cv − θv‖ of the unit rows, at most tol·‖C‖ where converged; some eigenvalue lies that near each value."""
    model, data = small_mlp("tanh"), examples(10)
    matrix = known_matrix("tanh", "cross_entropy")
    found = top_eigenvalues(model, "cross_entropy", data, 3, which=which, tol=tol, dtype=F64)
    assert found.vectors.dtype is F64
    values, residuals, vectors = found.values.reshape(-1), found.residuals.reshape(-1), found.vectors.reshape(-1, 964)
    spectrum = torch.linalg.eigvalsh(matrix)
    true = (vectors @ matrix - values[:, None] * vectors).norm(dim=1)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(len(vectors), dtype=F64))
    assert found.status == "converged"
    norm, rounding = float(spectrum.abs().max()), 1e-13 * float(spectrum.abs().max())
    assert float(residuals.max()) <= tol * norm
    assert bool((true <= residuals + rounding).all())  # also where a later pass ran outside of inexact pairs
    nearest = (values[:, None] - spectrum).abs().min(1).values
    assert bool((nearest <= residuals + rounding).all())


@pytest.mark.parametrize("tol", [3e-2, 1e-2])
@pytest.mark.parametrize("k", [1, 8])
def test_converged_means_a_residual_of_at_most_the_tolerance(k: int, tol: float) -> None:
    """Relative to ‖C‖ itself, not to an estimate that may be larger: the row sums of T are up to twice ‖T‖."""
    for seed in range(10):
        values = torch.randn(100, generator=torch_generator(seed, "values"), dtype=F64)
        found = of_matrix(rotated(values, seed), k, which="both", tol=tol, max_products=2000)
        assert found.status == "converged"
        assert float(found.residuals.max()) <= tol * float(values.abs().max())


@pytest.mark.parametrize(("which", "shape"), [("largest", (3,)), ("smallest", (3,)), ("both", (2, 3))])
def test_the_record_has_its_shapes_and_counts(which: Any, shape: tuple[int, ...]) -> None:
    model, data = small_mlp(), examples(10)
    found = top_eigenvalues(model, "cross_entropy", data, 3, which=which, tol=1e-3)
    for name in ("values", "residuals", "lower", "upper", "converged", "certified"):
        assert getattr(found, name).shape == shape, name
    assert found.vectors.shape == (*shape, 964)
    assert found.values.dtype is F64
    assert bool((found.values.diff(dim=-1) <= 0).all())
    assert (found.num_examples, found.num_parameters, found.curvature) == (60, 964, "hessian")
    assert (found.route, found.fallback) == ("lanczos", None)
    assert found.asymmetry <= 1e-5
    assert 0 < found.num_products <= 200


def test_the_products_counted_are_those_made(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    product = CurvatureOperator.__call__

    def counted(self: CurvatureOperator, vectors: Tensor) -> Tensor:
        calls.append(tuple(vectors.shape))
        return product(self, vectors)

    monkeypatch.setattr(CurvatureOperator, "__call__", counted)
    found = top_eigenvalues(small_mlp(), "cross_entropy", examples(10), 3, which="both", tol=1e-4)
    assert calls == [(964,)] * found.num_products


def test_the_same_call_gives_the_same_numbers_and_moves_no_global_state() -> None:
    model, data = small_mlp(), examples(10)
    state = torch.get_rng_state()
    once = top_eigenvalues(model, "cross_entropy", data, 2, which="both")
    again = top_eigenvalues(model, "cross_entropy", data, 2, which="both")
    assert torch.equal(torch.get_rng_state(), state)
    for name in ("values", "residuals", "lower", "upper", "vectors"):
        assert torch.equal(getattr(once, name), getattr(again, name))
    other = top_eigenvalues(model, "cross_entropy", data, 2, which="both", generator=torch_generator(1, "lanczos"))
    assert not torch.equal(once.vectors, other.vectors)
    assert torch.allclose(once.values, other.values, rtol=1e-2)


def test_only_trainable_parameters_are_measured() -> None:
    model, data = small_mlp("gelu"), examples(10)
    for value in list(model.parameters())[:2]:
        value.requires_grad_(False)
    found = top_eigenvalues(model, "cross_entropy", data, which="both", **TIGHT)
    assert found.num_parameters == 964 - 264
    assert found.vectors.shape == (2, 1, 700)
    spectrum = exact(model, "cross_entropy", data)
    assert len(spectrum) == 700
    assert float((found.values - ends(spectrum, 1)).abs().max()) <= 1e-5 * float(spectrum.abs().max())
    last = top_eigenvalues(model, "cross_entropy", data, params="5")
    assert last.num_parameters == 100


@pytest.mark.parametrize("k", [1, 3, 6])
def test_an_unused_parameter_adds_zero_eigenvalues(k: int) -> None:
    class Ignoring(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused, self.used = nn.Linear(7, 7), small_mlp("gelu")

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.used(x)
            return out

    model, data = Ignoring(), examples(10)
    used = torch.linalg.eigvalsh(known_matrix("gelu", "cross_entropy"))
    found = top_eigenvalues(model, "cross_entropy", data, k, which="both", **TIGHT)
    assert float((found.values - ends(used, k)).abs().max()) <= 1e-5 * float(used.abs().max())
    assert float(found.vectors[..., :56].abs().max()) <= 1e-4


@pytest.mark.parametrize("curvature", ["ggn", "fisher", "empirical_fisher"])
@pytest.mark.parametrize("k", [1, 5])
def test_both_routes_to_gauss_newton_agree(curvature: Curvature, k: int) -> None:
    """`which="both"` goes by Lanczos, "largest" by the Gram matrix where it is small."""
    model, data = small_mlp("gelu"), examples(10, count=20)
    gram = top_eigenvalues(model, "cross_entropy", data, k, curvature=curvature)
    lanczos = top_eigenvalues(model, "cross_entropy", data, k, curvature=curvature, which="both", **TIGHT)
    assert (gram.route, lanczos.route) == ("gram", "lanczos")
    assert (gram.num_products, gram.confidence) == (0, 1.0)
    assert bool(gram.certified.all())
    norm = float(gram.values[0])
    assert float((gram.values - lanczos.values[0]).abs().max()) <= 1e-5 * norm
    assert float(lanczos.values[1].abs().max()) <= 1e-5 * norm


# Operations without second derivative


class OnceTanh(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = torch.tanh(x)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        slope: Tensor = 1 - out * out
        return grad * slope


class Once(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = OnceTanh.apply(x)  # type: ignore[no-untyped-call]
        return out


class Centers(nn.Module):
    """Radial basis functions by `torch.cdist`, whose backward pass PyTorch cannot differentiate."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        generator = torch_generator(0, "centers")
        self.own, self.centers = own, nn.Parameter(torch.randn(4, 10, generator=generator))
        self.head = build(MLP(width=5, depth=2, activation="tanh"), (4,), 4, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        if self.own:
            far = (x.unsqueeze(1) - self.centers).square().sum(2).sqrt()
        else:
            far = torch.cdist(x, self.centers, compute_mode="donot_use_mm_for_euclid_dist")
        out: Tensor = self.head(torch.exp(-0.3 * far))
        return out


def equal_pair(name: str) -> tuple[nn.Module, nn.Module]:
    """A model with an operation that lacks a second derivative, and its equal without."""
    if name == "cdist":
        return Centers(own=False), Centers(own=True)
    whole = small_mlp("tanh")
    layers = [Once() if isinstance(layer, nn.Tanh) else layer for layer in whole.children()]
    return nn.Sequential(*layers), whole


@pytest.mark.parametrize("name", ["once_differentiable", "cdist"])
def test_where_there_is_no_second_derivative_differences_are_taken_and_said(name: str) -> None:
    lacking, whole = equal_pair(name)
    expected = exact(whole, "cross_entropy", examples(10))
    found = top_eigenvalues(lacking, "cross_entropy", examples(10), 2, which="both", tol=1e-2)
    assert found.fallback is not None
    assert name.split("_")[-1] in found.fallback
    assert float((found.values - ends(expected, 2)).abs().max()) <= 1e-2 * float(expected.abs().max())
    assert top_eigenvalues(whole, "cross_entropy", examples(10)).fallback is None


def test_a_wrong_second_derivative_is_an_error() -> None:
    """A backward pass that hides from autograd how it depends on its input gives products that are not symmetric."""

    class Hiding(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
            ctx.save_for_backward(x, w)
            return x @ w

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
            x, w = ctx.saved_tensors
            return grad @ w.detach().T, x.T @ grad

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            generator = torch_generator(0, "init")
            self.first = nn.Parameter(0.5 * torch.randn(10, 6, generator=generator))
            self.second = nn.Parameter(0.5 * torch.randn(6, 4, generator=generator))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = Hiding.apply(torch.tanh(x @ self.first), self.second)  # type: ignore[no-untyped-call]
            return out

    with pytest.raises(RuntimeError, match="products are not symmetric"):
        top_eigenvalues(Model(), "cross_entropy", examples(10), tol=1e-4)


# What is refused


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"k": 0}, "k = 0; allowed: an integer ≥ 1"),
        ({"k": -2}, "k = -2"),
        ({"which": "biggest"}, 'which = "biggest"; allowed: "largest", "smallest", "both"'),
        ({"curvature": "fischer"}, 'unknown curvature "fischer"; allowed: hessian, ggn, fisher, empirical_fisher'),
        ({"loss": "hinge"}, 'unknown loss "hinge"'),
        ({"tol": 0.0}, "tol = 0.0; allowed: between 0 and 1"),
        ({"tol": 1.0}, "tol = 1.0"),
        ({"tol": -1e-3}, "tol = -0.001"),
        ({"tol": math.nan}, "tol = nan"),
        ({"certify": 0.0}, "certify = 0.0"),
        ({"certify": 0.5}, "certify = 0.5; allowed: between 0 and 1/2"),
        ({"max_products": 0}, "max_products = 0"),
        ({"params": "body"}, 'under "body"'),
        ({"data": (torch.zeros(0, 10), torch.zeros(0, dtype=torch.long))}, "no example"),
        ({"loss": F.cross_entropy}, 'reduction="none"'),
        ({"loss": lambda outputs, y: outputs.sum(), "curvature": "fisher"}, 'reduction="none"|likelihood'),
        ({"loss": pytorchs_own, "curvature": "fisher"}, "likelihood"),
    ],
)
def test_arguments_out_of_range_are_errors(options: dict[str, Any], match: str) -> None:
    model = small_cnn() if "data" not in options else small_mlp()
    model.train()
    list(model.children())[1].eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    call = {"loss": "cross_entropy", "data": examples(1, 8, 8), "k": 1, **options}
    with pytest.raises(ValueError, match=match):
        top_eigenvalues(model, call.pop("loss"), call.pop("data"), call.pop("k"), **call)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_examples_that_are_not_finite_are_said_wherever_they_are() -> None:
    """Not only in the first chunk, which the check of determinism sees."""
    x, y = examples(10)
    broken = x.clone()
    broken[7] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        top_eigenvalues(small_mlp(), "cross_entropy", [(x, y), (broken, y)])


@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("which", ["largest", "both"])
def test_measuring_leaves_the_model_alone(which: Any, curvature: Curvature) -> None:
    model = small_cnn()
    model.train()
    list(model.children())[5].eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    top_eigenvalues(model, "cross_entropy", examples(1, 8, 8, count=10), 2, which=which, curvature=curvature)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.grad is None and value.requires_grad for value in model.parameters())
