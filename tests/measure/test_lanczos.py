"""The Lanczos process against exact spectra: moments, projections, ghosts, breakdown, and what it certifies."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.products.operators import MatrixOperator
from overparam.measure.spectrum.density import quadrature
from overparam.measure.spectrum.lanczos import Krylov, certified_ends, steps_to_certify
from tests.support.matrices import rotated

F64 = torch.float64
DTYPES = [torch.float32, F64]


def process(matrix: Tensor, steps: int, seed: int = 0, locked: Tensor | None = None) -> Krylov:
    none = torch.empty(0, len(matrix), dtype=matrix.dtype)
    krylov = Krylov(MatrixOperator(matrix), torch_generator(seed, "start"), none if locked is None else locked)
    for _ in range(steps):
        krylov.step()
    return krylov


def tridiagonal(krylov: Krylov) -> Tensor:
    off = torch.tensor(krylov.betas[:-1], dtype=F64)
    return torch.diag(torch.tensor(krylov.alphas, dtype=F64)) + torch.diag(off, 1) + torch.diag(off, -1)


def outlier(size: int = 200, top: float = 1.0) -> Tensor:
    """One eigenvalue far from a bulk."""
    bulk = torch.linspace(-0.05, 0.1, size - 1, dtype=F64)
    return top * torch.cat([bulk, torch.ones(1, dtype=F64)])


# What the process builds


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
def test_t_is_the_projection_of_the_matrix(dtype: torch.dtype, scale: float) -> None:
    """‖Q A Qᵀ − T‖ and ‖Q Qᵀ − 1‖ are rounding, at every scale."""
    matrix = rotated(scale * torch.randn(150, generator=torch_generator(0, "values"), dtype=F64), dtype=dtype)
    krylov = process(matrix, 100)
    q = krylov.basis[:100].double()
    norm = float(torch.linalg.matrix_norm(matrix.double(), 2))
    eps = float(torch.finfo(dtype).eps)
    difference = q @ matrix.double() @ q.T - tridiagonal(krylov)
    assert float(torch.linalg.matrix_norm(difference, 2)) <= 20 * eps * norm
    assert float((q @ q.T - torch.eye(100, dtype=F64)).abs().max()) <= 20 * eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("power", [-8, -6, -3, 0, 8])
def test_two_steps_keep_the_moments_up_to_the_third(power: int, dtype: torch.dtype) -> None:
    """Σ w θʲ = vᵀAʲv for j < 2m: with an epsilon in a norm, small matrices lose them."""
    matrix = rotated(10.0**power * outlier(80), dtype=dtype)
    krylov = process(matrix, 2)
    theta, _, s = krylov.ritz()
    v, norm = krylov.basis[0].double(), 10.0**power
    for j in range(4):
        expected = float(v @ torch.linalg.matrix_power(matrix.double(), j) @ v)
        tol = (1e-6 if dtype is torch.float32 else 1e-13) * norm**j
        assert abs(float((s[0] ** 2 * theta**j).sum()) - expected) <= tol


@given(steps=st.integers(1, 12), seed=st.integers(0, 10**6))
@settings(max_examples=25)
def test_m_steps_keep_the_moments_up_to_2m_minus_1(steps: int, seed: int) -> None:
    values = torch.rand(30, generator=torch_generator(seed, "values"), dtype=F64)
    matrix = rotated(values, seed)
    krylov = process(matrix, steps, seed)
    theta, _, s = krylov.ritz()
    v = krylov.basis[0]
    for j in range(2 * steps):
        expected = float(v @ torch.linalg.matrix_power(matrix, j) @ v)
        assert float((s[0] ** 2 * theta**j).sum()) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("power", [-3, -4, -5, -6, -7, -8])
def test_the_largest_node_is_the_largest_eigenvalue_of_a_tiny_matrix(power: int, dtype: torch.dtype) -> None:
    """With β + 1e-6 in place of β the ratio is off by far more from λmax = 1e-3 down."""
    top = 10.0**power
    for values in (outlier(120, top), top * torch.linspace(-0.3, 1.0, 120, dtype=F64)):
        found = quadrature(MatrixOperator(rotated(values, dtype=dtype)), 80, 2, torch_generator(0, "probe"))
        assert np.abs(found.nodes.max(1) / top - 1.0).max() <= 1e-5


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_outlier_has_no_ghosts(dtype: torch.dtype) -> None:
    """Without reorthogonalization copies of the outlier come up from about 30 steps on."""
    krylov = process(rotated(outlier(), dtype=dtype), 150)
    theta, _, _ = krylov.ritz()
    assert int((np.abs(theta - 1.0) <= 1e-6).sum()) == 1
    assert float(theta[-2]) <= 0.1 + 1e-6


def naive_lanczos(matrix: Tensor, steps: int) -> Tensor:
    """The three-term recurrence alone."""
    v = torch.randn(len(matrix), generator=torch_generator(0, "start"), dtype=F64).to(matrix.dtype)
    v, before, beta = v / v.norm(), torch.zeros_like(v), torch.zeros((), dtype=matrix.dtype)
    alphas: list[Tensor] = []
    betas: list[Tensor] = []
    for _ in range(steps):
        w = matrix @ v - beta * before
        alpha = w @ v
        w = w - alpha * v
        beta = w.norm()
        alphas.append(alpha)
        betas.append(beta)
        before, v = v, w / beta
    off = torch.stack(betas[:-1])
    found: Tensor = torch.linalg.eigvalsh(torch.diag(torch.stack(alphas)) + torch.diag(off, 1) + torch.diag(off, -1))
    return found


def test_ghosts_are_what_reorthogonalization_prevents() -> None:
    """The test above can fail: the bare recurrence has several copies of the outlier."""
    theta = naive_lanczos(rotated(outlier(), dtype=torch.float32), 150)
    assert int(((theta - 1.0).abs() <= 1e-5).sum()) > 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_residuals_are_those_of_the_ritz_vectors(dtype: torch.dtype) -> None:
    matrix = rotated(torch.randn(100, generator=torch_generator(0, "values"), dtype=F64), dtype=dtype)
    krylov = process(matrix, 30)
    theta, residuals, s = krylov.ritz()
    vectors = krylov.vectors(s).double()
    exact = (vectors @ matrix.double() - torch.from_numpy(theta)[:, None] * vectors).norm(dim=1).numpy()
    assert np.abs(residuals - exact).max() <= krylov.floor
    assert (exact <= residuals + krylov.floor).all()
    assert residuals.min() >= krylov.floor
    assert float((vectors @ vectors.T - torch.eye(30, dtype=F64)).abs().max()) <= 1e-5


@given(seed=st.integers(0, 10**6), size=st.integers(2, 40))
@settings(max_examples=30)
def test_the_norm_lies_between_that_of_t_and_twice_that(seed: int, size: int) -> None:
    values = torch.randn(size, generator=torch_generator(seed, "values"), dtype=F64)
    krylov = process(rotated(values, seed), max(1, size // 2), seed)
    norm = float(np.abs(krylov.ritz()[0]).max())
    assert norm * (1 - 1e-12) <= krylov.norm
    assert krylov.norm <= 2 * norm + max(krylov.betas[-1], 0.0) * (1 + 1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_full_space_has_the_whole_spectrum(dtype: torch.dtype) -> None:
    values = torch.randn(40, generator=torch_generator(0, "values"), dtype=F64).sort().values
    krylov = process(rotated(values, dtype=dtype), 40)
    assert krylov.exhausted
    tol = 1e-5 if dtype is torch.float32 else 1e-12
    assert np.abs(krylov.ritz()[0] - values.numpy()).max() <= tol * float(values.abs().max())
    assert float(krylov.ritz()[1].max()) <= 2 * krylov.floor


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 1e-8])
def test_a_breakdown_goes_on_from_a_fresh_direction(dtype: torch.dtype, scale: float) -> None:
    """Three distinct eigenvalues: the Krylov space is used up after three steps, the space is not."""
    values = scale * torch.tensor([2.0] * 3 + [1.0] * 5 + [-1.0] * 12, dtype=F64)
    matrix = rotated(values, dtype=dtype)
    krylov = process(matrix, 3)
    assert krylov.broken
    assert np.allclose(krylov.ritz()[0], scale * np.array([-1.0, 1.0, 2.0]), rtol=1e-5, atol=0.0)
    while not krylov.exhausted:
        krylov.step()
    assert np.allclose(krylov.ritz()[0], values.sort().values.numpy(), rtol=1e-5, atol=0.0)
    q = krylov.basis[: krylov.steps].double()
    assert float((q @ q.T - torch.eye(20, dtype=F64)).abs().max()) <= 1e-5


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_zero_matrix_has_eigenvalue_zero(dtype: torch.dtype) -> None:
    krylov = process(torch.zeros(6, 6, dtype=dtype), 6)
    assert krylov.broken
    assert krylov.exhausted
    assert krylov.ritz()[0].tolist() == [0.0] * 6
    assert krylov.norm == krylov.floor == 0.0


def test_a_matrix_of_one_entry_takes_one_step() -> None:
    krylov = process(torch.tensor([[-3.0]]), 1)
    assert krylov.exhausted
    assert krylov.ritz()[0].tolist() == [-3.0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_locked_vectors_stay_out(dtype: torch.dtype) -> None:
    values = torch.arange(1.0, 31.0, dtype=F64)
    matrix = rotated(values, dtype=dtype)
    _, vectors = torch.linalg.eigh(matrix.double())
    locked = vectors[:, [29, 28, 0]].T.to(dtype)
    krylov = process(matrix, 27, locked=locked)
    assert krylov.room == 27
    assert krylov.exhausted
    assert np.abs(krylov.ritz()[0] - values[1:28].numpy()).max() <= (1e-4 if dtype is torch.float32 else 1e-10)
    assert float((krylov.basis[:27] @ locked.T).abs().max()) <= (1e-5 if dtype is torch.float32 else 1e-13)


def test_asymmetry_is_seen() -> None:
    """The largest |q_iᵀ A q_j − q_jᵀ A q_i|: rounding for a symmetric matrix, not for another."""
    matrix = rotated(torch.randn(60, generator=torch_generator(0, "values"), dtype=F64))
    assert process(matrix, 40).asymmetry <= 1e-13
    skew = torch.zeros_like(matrix)
    skew[3, 7] = 0.1
    assert process(matrix + skew, 40).asymmetry > 1e-3


def test_the_same_generator_gives_the_same_process() -> None:
    matrix = rotated(outlier(50))
    assert process(matrix, 20).alphas == process(matrix, 20).alphas
    assert process(matrix, 20).alphas != process(matrix, 20, seed=1).alphas


# What it certifies


def test_intervals_are_those_of_the_theorem() -> None:
    """Kuczyński and Woźniakowski (1992), theorem 4.1 b, each end at δ/2: inserting ε gives back δ."""
    for steps, size, delta in ((30, 1000, 0.05), (80, 150_000, 0.05), (12, 50, 0.2)):
        ends = certified_ends(-2.0, 3.0, steps, size, delta, 0.0)
        reach = ends.largest[1] - 3.0
        assert ends.largest[0] == 3.0
        assert ends.smallest == pytest.approx((-2.0 - reach, -2.0))
        epsilon = reach / (5.0 + 2.0 * reach)  # reach as a share of the spread, widened at both ends
        failure = 2 * 1.648 * math.sqrt(size) * math.exp(-math.sqrt(epsilon) * (2 * steps - 1))
        assert failure == pytest.approx(delta, rel=1e-9)


def test_too_few_steps_certify_nothing_from_outside() -> None:
    ends = certified_ends(-1.0, 1.0, steps=5, size=10**6, delta=0.05, rounding=0.0)
    assert ends.largest == (1.0, math.inf)
    assert ends.smallest == (-math.inf, -1.0)


def test_rounding_widens_all_four_bounds() -> None:
    ends = certified_ends(-1.0, 1.0, steps=7, size=7, delta=0.05, rounding=0.125)
    assert ends.largest == (0.875, 1.125)
    assert ends.smallest == (-1.125, -0.875)


@given(epsilon=st.floats(1e-3, 0.49), size=st.integers(10, 10**7), delta=st.floats(0.01, 0.3))
@settings(max_examples=100)
def test_steps_to_certify_is_the_least_number_that_does(epsilon: float, size: int, delta: float) -> None:
    steps = steps_to_certify(epsilon, size, delta)
    assert steps <= size
    allowed = epsilon / (1.0 - 2.0 * epsilon)
    assert certified_ends(0.0, 1.0, steps, size, delta, 0.0).largest[1] <= 1.0 + allowed * (1 + 1e-9)
    if 1 < steps < size:
        assert certified_ends(0.0, 1.0, steps - 1, size, delta, 0.0).largest[1] > 1.0 + allowed
