"""Kernel regression against gradient descent that is run: on features, with all blocks, with and without ridge."""

import math
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.kernels import regression as module
from overparam.measure.kernels.empirical import empirical_ntk
from overparam.measure.kernels.regression import kernel_regression
from tests.support.networks import smooth_mlp

F64 = torch.float64
N, M, C = 7, 5, 3


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch_generator(seed, "normal", *shape), dtype=F64)


def descended(phi: Tensor, phi_test: Tensor, residual: Tensor, lr: float, steps: int, ridge: float = 0.0) -> Tensor:
    """Change of the outputs (M, C) of `f = f0 + φ·θ` under `(1/N) Σ ½‖f − y‖² + ridge/(2N)·‖θ‖²`, from θ = 0.

    Features are (N, C, P): output a of example i is `φ_ia·θ`.
    """
    theta = torch.zeros(phi.shape[2], dtype=F64)
    for _ in range(steps):
        gap = phi @ theta - residual
        theta = theta - lr / len(phi) * (torch.einsum("nc,ncp->p", gap, phi) + ridge * theta)
    return phi_test @ theta


def blocks(a: Tensor, b: Tensor) -> Tensor:
    return torch.einsum("icp,jdp->ijcd", a, b)


@pytest.mark.parametrize("ridge", [0.0, 0.7])
@pytest.mark.parametrize("size", [10, 60])
@pytest.mark.parametrize("steps", [0, 1, 2, 25, 300])
def test_all_blocks_predict_what_gradient_descent_does(steps: int, size: int, ridge: float) -> None:
    """Fewer features than the 21 outputs, too: the kernel is singular then."""
    phi, phi_test, y, f0, f0_test = (
        normal(N, C, size),
        normal(M, C, size),
        normal(N, C),
        normal(N, C, seed=1),
        normal(M, C),
    )
    kernel, across = blocks(phi, phi), blocks(phi_test, phi)
    top = float(torch.linalg.eigvalsh(kernel.permute(0, 2, 1, 3).reshape(N * C, N * C))[-1])
    for share in (0.3, 1.1, 1.9):  # of N/λ_max: the residual changes sign at each step beyond 1
        lr = share * N / (top + ridge)
        found = kernel_regression(kernel, y, across, time=steps, lr=lr, f0_train=f0, f0_test=f0_test, ridge=ridge)
        true = f0_test + descended(phi, phi_test, y - f0, lr, steps, ridge)
        assert (found - true).abs().max() < 1e-12 * max(1.0, float(true.abs().max())), share


@pytest.mark.parametrize("ridge", [0.0, 0.7])
def test_a_shared_kernel_is_one_model_per_output(ridge: float) -> None:
    phi, phi_test, y, f0, f0_test = normal(N, 1, 20), normal(M, 1, 20), normal(N, C), normal(N, C, seed=1), normal(M, C)
    kernel, across = phi[:, 0] @ phi[:, 0].T, phi_test[:, 0] @ phi[:, 0].T
    options: dict[str, Any] = {"time": 40, "lr": 0.1, "ridge": ridge}
    found = kernel_regression(kernel, y, across, f0_train=f0, f0_test=f0_test, **options)
    columns = [descended(phi, phi_test, (y - f0)[:, c : c + 1], 0.1, 40, ridge) for c in range(C)]
    assert (found - f0_test - torch.cat(columns, dim=1)).abs().max() < 1e-12
    identity = torch.eye(C, dtype=F64)
    whole = (k[:, :, None, None] * identity for k in (kernel, across))
    again = kernel_regression(next(whole), y, next(whole), f0_train=f0, f0_test=f0_test, **options)
    assert (found - again).abs().max() < 1e-12
    single = kernel_regression(kernel, y[:, 1], across, f0_train=f0[:, 1], f0_test=f0_test[:, 1], **options)
    assert single.shape == (M,)
    assert (found[:, 1] - single).abs().max() < 1e-13


@pytest.mark.parametrize(("size", "ridge"), [(4, 0.0), (4, 0.5), (30, 0.0), (30, 0.5)])
def test_the_limit_is_that_of_gradient_descent(size: int, ridge: float) -> None:
    """4 features for 7 examples leave a null space, in which gradient descent does not move."""
    phi, phi_test, y = normal(N, 1, size), normal(M, 1, size), normal(N, 1)
    kernel, across = phi[:, 0] @ phi[:, 0].T, phi_test[:, 0] @ phi[:, 0].T
    lr = 1.5 * N / (float(torch.linalg.eigvalsh(kernel)[-1]) + ridge)
    found = kernel_regression(kernel, y, across, ridge=ridge)
    assert (found - descended(phi, phi_test, y, lr, 3000, ridge)).abs().max() < 1e-10
    assert (found - kernel_regression(kernel, y, across, ridge=ridge, time=3000, lr=lr)).abs().max() < 1e-10


def test_the_limit_interpolates_and_subtracts_the_start() -> None:
    phi, y, f0 = normal(N, 20), normal(N, C), normal(N, C, seed=1)
    kernel = phi @ phi.T
    assert (kernel_regression(kernel, y, kernel, f0_train=f0, f0_test=f0) - y).abs().max() < 1e-12
    assert (kernel_regression(kernel, y, kernel, f0_train=0.5, f0_test=0.5) - y).abs().max() < 1e-12
    assert (kernel_regression(kernel, f0, kernel, f0_train=f0, f0_test=2.0) - 2.0).abs().max() == 0.0


def test_a_linear_network_trains_as_its_empirical_kernel_says() -> None:
    """A torch layer, one bias and all, 30 steps of gradient descent by autograd on mse over classes."""
    x, x_test, labels = normal(N, 4), normal(M, 4), torch.tensor([0, 1, 2, 0, 1, 2, 2])
    layer = torch.nn.Linear(4, C).double()
    with torch.no_grad():
        f0, f0_test = layer(x), layer(x_test)
    kernel, across = empirical_ntk(layer, x), empirical_ntk(layer, x_test, x)
    found = kernel_regression(kernel, labels, across, time=30, lr=0.4, f0_train=f0, f0_test=f0_test)
    for _ in range(30):
        loss = 0.5 * (layer(x) - torch.nn.functional.one_hot(labels)).square().sum(1).mean()
        slopes = torch.autograd.grad(loss, list(layer.parameters()))
        with torch.no_grad():
            for p, slope in zip(layer.parameters(), slopes, strict=True):
                p.sub_(slope, alpha=0.4)
    assert (found - layer(x_test)).abs().max() < 1e-12


def test_small_steps_add_up_to_gradient_flow() -> None:
    """`1 − exp(−λt/N)` with 10⁹ steps of 10⁻⁹: 1 − (1 − z)^t keeps its digits."""
    kernel = torch.diag(torch.tensor([3.0, 1e-3, 0.0], dtype=F64))
    y = torch.ones(3, dtype=F64)
    found = kernel_regression(kernel, y, torch.eye(3, dtype=F64), time=10**9, lr=1e-9)
    true = [(1.0 - math.exp(-1.0)) / 3.0, -math.expm1(-1e-3 / 3) / 1e-3, 0.0]
    assert found.tolist() == pytest.approx(true, rel=2e-9, abs=0.0)
    few = kernel_regression(kernel, y, torch.eye(3, dtype=F64), time=2, lr=1e-12)
    assert few.tolist() == pytest.approx([2e-12 / 3, 2e-12 / 3, 0.0], rel=1e-11, abs=0.0)


def test_long_times_come_to_the_limit_of_a_singular_kernel() -> None:
    """In its null space a float32 kernel has rounding, which 10¹⁰ steps would learn from."""
    phi, phi_test = normal(12, 1, 5).float()[:, 0], normal(M, 1, 5).float()[:, 0]
    kernel, across, y = phi @ phi.T, phi_test @ phi.T, normal(12, 2)
    limit = kernel_regression(kernel, y, across)
    late = kernel_regression(kernel, y, across, time=10**10, lr=0.1)
    assert (late - limit).abs().max() < 1e-6 * limit.abs().max()


def test_no_step_is_the_start_at_any_rate() -> None:
    kernel = 2.0 * torch.eye(3)
    assert kernel_regression(kernel, normal(3, 1), kernel, time=0, lr=50.0, f0_test=4.0).tolist() == [[4.0]] * 3


def test_the_critical_rate_takes_one_step() -> None:
    kernel = 2.0 * torch.eye(3, dtype=F64)
    y = normal(3, 1)
    for time in (1, 2, 0.5, 7):
        assert (kernel_regression(kernel, y, kernel, time=time, lr=1.5) - y).abs().max() < 1e-15
    assert torch.equal(
        kernel_regression(kernel, y, kernel, time=0, lr=1.5, f0_test=4.0), torch.full((3, 1), 4.0).double()
    )


@given(seed=st.integers(0, 500), time=st.integers(0, 50), more=st.integers(0, 50), full=st.booleans())
@settings(max_examples=60)
def test_time_is_additive_and_examples_have_no_order(seed: int, time: int, more: int, full: bool) -> None:
    """Training for t, then on from there for s, is training for t + s; and permuted examples predict the same."""
    phi, phi_test = normal(N, C, 15, seed=seed), normal(M, C, 15, seed=seed)
    if not full:
        phi, phi_test = phi[:, :1], phi_test[:, :1]
    kernel, across = blocks(phi, phi), blocks(phi_test, phi)
    if not full:
        kernel, across = kernel[:, :, 0, 0], across[:, :, 0, 0]
    y = normal(N, C, seed=seed)
    first, there = (kernel_regression(kernel, y, k, time=time, lr=0.1) for k in (kernel, across))
    later = kernel_regression(kernel, y, across, time=more, lr=0.1, f0_train=first, f0_test=there)
    both = kernel_regression(kernel, y, across, time=time + more, lr=0.1)
    assert (later - both).abs().max() < 1e-10
    order = torch.randperm(N, generator=torch_generator(seed, "order"))
    permuted = kernel_regression(kernel[order][:, order], y[order], across[:, order], time=time, lr=0.1)
    assert (permuted - there).abs().max() < 1e-10


def test_test_kernels_are_taken_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    phi, phi_test, y = normal(N, C, 15), normal(M, C, 15), normal(N, C)
    whole = kernel_regression(blocks(phi, phi), y, blocks(phi_test, phi))
    monkeypatch.setattr(module, "ELEMENTS", 2 * N * C * C)
    assert torch.allclose(kernel_regression(blocks(phi, phi), y, blocks(phi_test, phi)), whole, rtol=1e-13, atol=1e-13)
    assert kernel_regression(blocks(phi, phi), y, blocks(phi_test, phi)[:0]).shape == (0, C)


def test_labels_are_one_hot() -> None:
    kernel, labels = torch.eye(3), torch.tensor([0, 2, 0])
    assert kernel_regression(kernel, labels, kernel).tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 0]]
    assert kernel_regression(kernel, labels, kernel, f0_train=torch.zeros(3, 5)).shape == (3, 5)
    assert kernel_regression(kernel, labels == 2, kernel).tolist() == [[1, 0], [0, 1], [1, 0]]
    wide = kernel[:, :, None, None] * torch.eye(4)
    assert kernel_regression(wide, labels, wide).tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_results_have_the_dtype_of_the_kernel(dtype: torch.dtype) -> None:
    """And are computed in float64: a float32 kernel of a network gives what its float64 copy does."""
    x, labels = normal(N, 4), torch.tensor([0, 1, 2, 0, 1, 2, 2])
    kernel = empirical_ntk(smooth_mlp(), x).to(dtype)
    found = kernel_regression(kernel, labels, kernel, time=50, lr=0.05)
    true = kernel_regression(kernel.double(), labels, kernel.double(), time=50, lr=0.05)
    assert found.dtype is dtype
    assert torch.equal(found, true.to(dtype))


def test_rounding_of_a_singular_kernel_is_not_inverted() -> None:
    """A float32 kernel of 4 features: what rounding put into its null space would be divided by 1e-8 otherwise."""
    phi, phi_test, y = normal(60, 4), normal(M, 4), normal(60, 1)
    exact = phi_test @ torch.linalg.lstsq(phi, y).solution
    found = kernel_regression((phi @ phi.T).float(), y, (phi_test @ phi.T).float())
    assert (found - exact).abs().max() < 1e-5


BASE: dict[str, Any] = {"k_train": torch.eye(3), "y_train": torch.zeros(3, 2), "k_test": torch.ones(2, 3)}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"time": 3}, "time = 3 and lr = None; give both, or neither"),
        ({"lr": 0.1}, "time = None and lr = 0.1"),
        ({"lr": 0.1, "time": -1}, "time = -1; allowed: a number of steps"),
        ({"lr": 0.1, "time": math.inf}, "time = inf; allowed: a number of steps, 0 or more, or None"),
        ({"lr": -0.1, "time": 1}, "lr = -0.1; allowed: a positive number"),
        ({"lr": 6.0, "time": 1}, "lr = 6.0: gradient descent diverges; allowed: below 2N/(λ_max + ridge) = 6"),
        ({"lr": 3.0, "time": 1, "ridge": 1.0}, "below 2N/(λ_max + ridge) = 3"),
        ({"lr": 4.0, "time": 1.5}, "time = 1.5 at lr = 4.0, where the residual changes sign"),
        ({"ridge": -1.0}, "ridge = -1.0; allowed: 0 or a positive number"),
        ({"k_train": torch.eye(3) + torch.ones(3, 3).triu(1)}, "k_train is not symmetric"),
        ({"k_train": torch.eye(3) * math.nan}, "k_train holds 9 values that are not finite"),
        ({"k_train": torch.diag(torch.tensor([1.0, 1.0, -0.5]))}, "k_train has eigenvalues from -0.5 to 1"),
        (
            {"k_train": torch.diag(torch.tensor([1.0, 1.0, -0.5])), "ridge": 0.1},
            "k_train has eigenvalues from -0.5 to 1",
        ),
        ({"k_train": torch.eye(3).long()}, "k_train has shape (3, 3) (torch.int64); allowed: floats (N, N)"),
        ({"k_train": torch.ones(3, 2)}, "k_train has shape (3, 2)"),
        ({"k_train": torch.ones(3, 3, 2, 1)}, "k_train has shape (3, 3, 2, 1)"),
        ({"k_test": torch.ones(2, 4)}, "k_test has shape (2, 4); allowed: (M, 3), as that of k_train"),
        ({"k_test": torch.ones(2, 3, 2, 2)}, "k_test has shape (2, 3, 2, 2)"),
        ({"k_test": torch.full((2, 3), math.inf)}, "k_test holds 6 values that are not finite"),
        ({"y_train": torch.zeros(4, 2)}, "y_train has shape (4, 2) (torch.float32) for 3 examples"),
        ({"y_train": torch.zeros(3, 2).long()}, "y_train has shape (3, 2) (torch.int64)"),
        ({"y_train": torch.full((3,), math.nan)}, "y_train holds 3 values that are not finite"),
        ({"y_train": torch.tensor([0, -1, 1])}, "labels lie in -1 … 1; allowed: 0 … 1"),
        ({"y_train": torch.tensor([0, 3, 1]), "f0_test": torch.zeros(2, 2)}, "labels lie in 0 … 3; allowed: 0 … 1"),
        ({"f0_train": torch.zeros(2, 2)}, "f0_train has shape (2, 2); allowed: a number, or shape (3, 2)"),
        ({"f0_test": torch.zeros(3, 2)}, "f0_test has shape (3, 2); allowed: a number, or shape (2, 2)"),
        ({"f0_test": math.nan}, "f0_test holds 1 values that are not finite"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_errors(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=re.escape(match)):
        kernel_regression(**{**BASE, **options})


def test_blocks_must_fit_the_targets() -> None:
    k = torch.eye(3)[:, :, None, None] * torch.eye(4)
    with pytest.raises(ValueError, match="y_train has 2 outputs and the blocks of k_train have 4"):
        kernel_regression(k, torch.zeros(3, 2), k)
