"""What gradient descent on the squared error predicts in the linear model that has a given kernel."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from overparam.measure.kernels.similarity import refuse_indefinite, symmetric_matrix

ELEMENTS = 2**22  # of the rows of `k_test` that are held in float64 at a time


class Diverges(ValueError):
    """The learning rate is at or above 2N/λ_max."""


@torch.no_grad()
def kernel_regression(
    k_train: Tensor,
    y_train: Tensor,
    k_test: Tensor,
    *,
    time: float | None = None,
    lr: float | None = None,
    f0_train: Tensor | float = 0.0,
    f0_test: Tensor | float = 0.0,
    ridge: float = 0.0,
) -> Tensor:
    """Prediction (M, C) after `time` steps of gradient descent on `(1/N) Σ ½‖f(x_i) − y_i‖²`, from f0, at rate `lr`.

    `f_t(x) = f0(x) + K(x, X) (K + λ)⁻¹ (1 − (1 − lr/N · (K + λ))^t) (y − f0(X))`, with λ = `ridge` for the loss with
    `λ/(2N)·‖θ − θ0‖²` added. `time=None` is the limit t → ∞ (no `lr` then). Without ridge its inverse leaves out
    eigenvalues up to `2√n·ε·λ_max`, with ε of the dtype of `k_train`, which has n rows, or up to the size of the most
    negative one: such directions are rounding, and in a null space gradient descent stays where it started.

    `k_train` (N, N) and `k_test` (M, N) are shared by all outputs; (N, N, C, C) and (M, N, C, C) are all blocks, as
    `empirical_ntk` gives them. `y_train` holds floats (N, C) or (N,), with a prediction (M,) then, or integer labels
    (N,) that become one-hot: C is that of the blocks, of an f0, or the largest label + 1. `f0_train` and `f0_test` are
    the model's outputs before training, or one number. Computed in float64 from one eigendecomposition, returned in
    the dtype of `k_train`. Source: Jacot, Gabriel & Hongler (2018), Lee et al. (2019).

    Raises:
        ValueError: shapes disagree, values are not finite, `k_train` is not symmetric or not positive semi-definite
            (in the limit with a ridge: K + λ is not), `lr` is so large that gradient descent diverges, or `time` is
            fractional where it oscillates.

    >>> k = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    >>> kernel_regression(k, torch.tensor([1.0, -1.0]), torch.tensor([[1.0, 0.0]]), time=1, lr=0.5)  # 1·(lr/N)·1
    tensor([0.2500])
    """
    _refuse_numbers(time, lr, ridge)
    starts = {"f0_train": f0_train, "f0_test": f0_test}
    return kernel_predictor(k_train, y_train, k_test, ridge=ridge, **starts)(time, lr)


@torch.no_grad()
def kernel_predictor(
    k_train: Tensor,
    y_train: Tensor,
    k_test: Tensor,
    *,
    f0_train: Tensor | float = 0.0,
    f0_test: Tensor | float = 0.0,
    ridge: float = 0.0,
) -> Callable[[float | None, float | None], Tensor]:
    """`kernel_regression` as a function of `time` and `lr`, with one eigendecomposition for all of them.

    The limit with a ridge needs none: it is solved by a Cholesky factor.
    """
    matrix = symmetric_matrix(k_train, "k_train")
    _refuse_test_kernel(k_train, k_test)
    targets = _targets(y_train, k_train, (f0_train, f0_test))
    tail = targets.shape[1:]
    residual = targets - _outputs(f0_train, targets.shape, "f0_train")
    start = _outputs(f0_test, (len(k_test), *tail), "f0_test")
    rows = residual.reshape(-1, 1) if k_train.ndim == 4 else residual.reshape(len(k_train), -1)
    spectrum = lru_cache(maxsize=1)(lambda: _Spectrum.of(matrix, k_train.dtype, len(k_train), ridge))

    @torch.no_grad()
    def predicted(time: float | None, lr: float | None) -> Tensor:
        _refuse_numbers(time, lr, ridge)
        duals = _ridge_duals(matrix, rows, ridge) if time is None and ridge > 0.0 else None
        if duals is None:
            gains = spectrum().limit() if time is None or lr is None else spectrum().after(time, lr)
            duals = spectrum().vectors @ (gains.unsqueeze(1) * (spectrum().vectors.T @ rows))
        return (start + _applied(k_test, duals).reshape(start.shape)).to(k_train.dtype).to(k_train.device)

    return predicted


def _ridge_duals(matrix: Tensor, rows: Tensor, ridge: float) -> Tensor | None:
    """`(K + λ)⁻¹` times the residuals; None if rounding has left K + λ without a Cholesky factor."""
    shifted = matrix.clone()
    shifted.diagonal().add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    return None if int(failed) else torch.cholesky_solve(rows, factor)


@dataclass(frozen=True)
class _Spectrum:
    """Eigenvalues (n,) of K, none negative, and eigenvectors (n, n); `noise` is what rounding may do to a value."""

    values: Tensor
    vectors: Tensor
    noise: float
    num_examples: int
    ridge: float

    @classmethod
    def of(cls, matrix: Tensor, dtype: torch.dtype, num_examples: int, ridge: float) -> "_Spectrum":
        values, vectors = torch.linalg.eigh(matrix)
        refuse_indefinite(values, dtype, "k_train")
        noise = max(2.0 * len(matrix) ** 0.5 * torch.finfo(dtype).eps * float(values[-1]), -float(values[0]))
        return cls(values.clamp_min(0.0), vectors, noise, num_examples, ridge)

    def limit(self) -> Tensor:
        """`1/(λ_i + ridge)`, or the pseudo-inverse."""
        if self.ridge > 0.0:
            return 1.0 / (self.values + self.ridge)
        return torch.where(self.values > self.noise, 1.0 / self.values, 0.0)

    def after(self, time: float, lr: float) -> Tensor:
        """`(1 − (1 − z)^t)/(λ_i + ridge)` with `z = lr/N·(λ_i + ridge)`; rounding does not learn."""
        if time == 0:
            return torch.zeros_like(self.values)
        values = self.values + self.ridge
        z = lr / self.num_examples * values
        if float(z[-1]) >= 2.0:
            bound = 2.0 * self.num_examples / float(values[-1])
            raise Diverges(f"lr = {lr}: gradient descent diverges; allowed: below 2N/(λ_max + ridge) = {bound:.6g}")
        flips = z > 1.0
        if bool(flips.any()) and time != int(time):
            bound = self.num_examples / float(values[-1])
            raise ValueError(
                f"time = {time} at lr = {lr}, where the residual changes sign at each step; allowed: a whole number of "
                f"steps, or lr up to N/(λ_max + ridge) = {bound:.6g}"
            )
        # `log|1 − z|` with the digits of a small z, and its power with those of what it lacks to 1.
        logs = torch.where(flips, (z - 1.0).log(), torch.log1p(-z))
        powers = time * logs
        done = torch.where(flips & (time % 2 == 1), 1.0 + powers.exp(), -powers.expm1())
        if self.ridge > 0.0:
            return done / values
        return torch.where(self.values > self.noise, done / values, 0.0)


def _applied(k_test: Tensor, duals: Tensor) -> Tensor:
    """`K(x, X)` times the duals (N, C) or (N·C, 1), by rows."""
    rows = max(1, ELEMENTS // max(1, k_test.shape[1:].numel()))
    parts = []
    for part in torch.split(k_test.detach(), rows):
        matrix = part if part.ndim == 2 else part.permute(0, 2, 1, 3).reshape(-1, len(duals))
        parts.append(matrix.cpu().double() @ duals)
    return torch.cat(parts)


def _targets(y: Tensor, k_train: Tensor, starts: tuple[Tensor | float, Tensor | float]) -> Tensor:
    """Float64 targets (N, C), or (N,) as they came."""
    y, blocks = y.detach().cpu(), k_train.shape[2] if k_train.ndim == 4 else None
    if len(k_train) != (len(y) if y.ndim else -1) or y.ndim > (2 if y.is_floating_point() else 1):
        raise ValueError(
            f"y_train has shape {tuple(y.shape)} ({y.dtype}) for {len(k_train)} examples of k_train; allowed: floats "
            "(N,) or (N, C), or integer labels (N,)"
        )
    if not bool(y.isfinite().all()):
        raise ValueError(f"y_train holds {int((~y.isfinite()).sum())} values that are not finite")
    if not y.is_floating_point():
        widths = [f.shape[1] for f in starts if isinstance(f, Tensor) and f.ndim == 2]
        num_classes = blocks or (widths[0] if widths else int(y.max()) + 1)
        if int(y.min()) < 0 or int(y.max()) >= num_classes:
            raise ValueError(f"labels lie in {int(y.min())} … {int(y.max())}; allowed: 0 … {num_classes - 1}")
        y = F.one_hot(y.long(), num_classes)
    outputs = 1 if y.ndim == 1 else y.shape[1]
    if blocks not in (None, outputs):
        raise ValueError(f"y_train has {outputs} outputs and the blocks of k_train have {blocks}")
    return y.double()


def _outputs(f0: Tensor | float, shape: tuple[int, ...], name: str) -> Tensor:
    values = torch.as_tensor(f0, dtype=torch.float64, device="cpu").detach()
    if values.ndim and tuple(values.shape) != tuple(shape):
        raise ValueError(f"{name} has shape {tuple(values.shape)}; allowed: a number, or shape {tuple(shape)}")
    if not bool(values.isfinite().all()):
        raise ValueError(f"{name} holds {int((~values.isfinite()).sum())} values that are not finite")
    return values.expand(shape)


def _refuse_numbers(time: float | None, lr: float | None, ridge: float) -> None:
    if (time is None) != (lr is None):
        raise ValueError(f"time = {time} and lr = {lr}; give both, or neither for the limit of infinite time")
    if time is not None and not (math.isfinite(time) and time >= 0):
        raise ValueError(f"time = {time}; allowed: a number of steps, 0 or more, or None for the limit")
    if lr is not None and not (math.isfinite(lr) and lr > 0.0):
        raise ValueError(f"lr = {lr}; allowed: a positive number")
    if not (math.isfinite(ridge) and ridge >= 0.0):
        raise ValueError(f"ridge = {ridge}; allowed: 0 or a positive number")


def _refuse_test_kernel(k_train: Tensor, k_test: Tensor) -> None:
    if k_test.ndim != k_train.ndim or k_test.shape[1:] != k_train.shape[1:]:
        allowed = "M, " + ", ".join(str(n) for n in k_train.shape[1:])
        raise ValueError(f"k_test has shape {tuple(k_test.shape)}; allowed: ({allowed}), as that of k_train")
    if not bool(k_test.isfinite().all()):
        raise ValueError(f"k_test holds {int((~k_test.isfinite()).sum())} values that are not finite")
