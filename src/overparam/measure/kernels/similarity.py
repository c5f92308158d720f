"""How alike two kernels are, how far one has moved, and how many directions it has.

All take kernels (N, N) or blocks (N, N, C, C) as `empirical_ntk` gives them, the same for both; sums run in float64.
"""

import torch
from torch import Tensor

CONSTANT = 1e-13  # of the norm: what centring leaves of a constant kernel


def kernel_alignment(k1: Tensor, k2: Tensor, *, centred: bool = False) -> float:
    """Cosine `⟨K₁, K₂⟩_F / (‖K₁‖_F ‖K₂‖_F)` of two kernels, 1 if they differ by a positive factor.

    `centred=True` takes `HKH` with `H = 1 − 11ᵀ/N` over the examples first: the alignment of Cortes, Mohri &
    Rostamizadeh (2012), which is linear CKA (Kornblith et al. 2019).

    Raises:
        ValueError: shapes disagree, values are not finite, or a kernel is zero, or constant where it is centred.

    >>> kernel_alignment(torch.eye(2), torch.tensor([[1.0, 1.0], [1.0, 1.0]]))  # 2/(√2·2)
    0.7071067811865475
    """
    first, second = _pair(k1, k2)
    if centred:
        first, second = _centred(first, "k1"), _centred(second, "k2")
    cosine = float((_unit(first, "k1") * _unit(second, "k2")).sum())
    return max(-1.0, min(1.0, cosine))


def kernel_distance(k1: Tensor, k2: Tensor) -> float:
    """`1 − ⟨K₁, K₂⟩_F / (‖K₁‖_F ‖K₂‖_F)`, computed as `½‖K₁/‖K₁‖_F − K₂/‖K₂‖_F‖_F²`, which keeps small distances.

    Source: Fort et al. (2020).

    Raises:
        ValueError: shapes disagree, values are not finite, or a kernel is zero.

    >>> kernel_distance(torch.eye(4), torch.ones(4, 4))  # 1 − 4/(2·4)
    0.5
    """
    first, second = _pair(k1, k2)
    return 0.5 * float((_unit(first, "k1") - _unit(second, "k2")).square().sum())


def kernel_drift(k0: Tensor, k: Tensor) -> float:
    """Relative change `‖K − K₀‖_F / ‖K₀‖_F` of a kernel.

    Raises:
        ValueError: shapes disagree, values are not finite, or `k0` is zero.

    >>> kernel_drift(torch.eye(2), 1.5 * torch.eye(2))
    0.5
    """
    start, end = _pair(k0, k, ("k0", "k"))
    return float(torch.linalg.vector_norm(end - start)) / _norm(start, "k0")


def label_kernel(y: Tensor, num_classes: int | None = None) -> Tensor:
    """Gram matrix `Y Yᵀ` (N, N) of targets, float64: for labels (N,) 1 where two are equal, else 0.

    Integers are labels, whose rows of Y are one-hot; floats (N,) or (N, C) are Y itself. How well a kernel fits the
    labels is `kernel_alignment(k, label_kernel(y), centred=True)`; without centring it grows with their imbalance.

    Raises:
        ValueError: the targets have another shape, are not finite, or labels are not in 0 … num_classes − 1.

    >>> label_kernel(torch.tensor([0, 1, 0]))
    tensor([[1., 0., 1.],
            [0., 1., 0.],
            [1., 0., 1.]], dtype=torch.float64)
    """
    y = y.detach().cpu()
    if y.is_floating_point():
        if y.ndim not in (1, 2) or len(y) == 0 or not bool(y.isfinite().all()):
            raise ValueError(f"targets of shape {tuple(y.shape)}; allowed: finite floats (N,) or (N, C)")
        rows = y.double().reshape(len(y), -1)
        return rows @ rows.T
    if y.ndim != 1 or len(y) == 0:
        raise ValueError(f"labels of shape {tuple(y.shape)} ({y.dtype}); allowed: integers (N,), or floats (N, C)")
    low, high = int(y.min()), int(y.max())
    if low < 0 or (num_classes is not None and high >= num_classes):
        allowed = "0 or above" if num_classes is None else f"0 … {num_classes - 1}"
        raise ValueError(f"labels lie in {low} … {high}; allowed: {allowed}")
    return (y.unsqueeze(1) == y).double()


@torch.no_grad()
def effective_rank(k: Tensor) -> float:
    """`exp(−Σ p_i log p_i)` with `p_i = λ_i/Σλ`: from 1 for one direction to N (N·C for blocks) for equal eigenvalues.

    Source: Roy & Vetterli (2007). Negative eigenvalues within rounding count as 0.

    Raises:
        ValueError: the kernel is no symmetric, finite, positive semi-definite matrix, or is zero.

    >>> round(effective_rank(torch.diag(torch.tensor([1.0, 1.0, 0.0]))), 12)
    2.0
    """
    matrix = symmetric_matrix(k, "k")
    _norm(matrix, "k")
    values: Tensor = torch.linalg.eigvalsh(matrix)
    refuse_indefinite(values, k.dtype, "k")
    shares = values.clamp_min(0.0) / values.clamp_min(0.0).sum()
    return float(torch.special.entr(shares).sum().exp())


def symmetric_matrix(k: Tensor, name: str) -> Tensor:
    """The matrix (N, N) or (N·C, N·C) of a kernel, float64 on the CPU."""
    refuse_kernel(k, name)
    matrix = k.detach().cpu()
    if k.ndim == 4:
        matrix = matrix.permute(0, 2, 1, 3).reshape(len(k) * k.shape[2], -1)
    matrix = matrix.double()
    apart, size = float((matrix - matrix.T).abs().max()), float(matrix.abs().max())
    if apart > torch.finfo(k.dtype).eps ** 0.5 * size:
        raise ValueError(f"{name} is not symmetric: entries differ from the transposed ones by up to {apart:.2g}")
    return matrix


def refuse_kernel(k: Tensor, name: str) -> None:
    shape = tuple(k.shape)
    square = k.ndim in (2, 4) and shape[0] == shape[1] and (k.ndim == 2 or shape[2] == shape[3])
    if not square or k.numel() == 0 or not k.is_floating_point():
        raise ValueError(f"{name} has shape {shape} ({k.dtype}); allowed: floats (N, N) or (N, N, C, C)")
    if not bool(k.isfinite().all()):
        raise ValueError(f"{name} holds {int((~k.isfinite()).sum())} values that are not finite")


def refuse_indefinite(values: Tensor, dtype: torch.dtype, name: str) -> None:
    """Eigenvalues, ascending: below zero by more than the root of machine ε they are no rounding."""
    low, high = float(values[0]), float(values[-1])
    if low < -(torch.finfo(dtype).eps ** 0.5) * max(high, 0.0):
        raise ValueError(
            f"{name} has eigenvalues from {low:.3g} to {high:.3g}; a kernel has none below 0. Compute it in float64 if "
            "this is rounding"
        )


def _pair(k1: Tensor, k2: Tensor, names: tuple[str, str] = ("k1", "k2")) -> tuple[Tensor, Tensor]:
    for name, k in zip(names, (k1, k2), strict=True):
        refuse_kernel(k, name)
    if k1.shape != k2.shape:
        raise ValueError(
            f"{names[0]} and {names[1]} have shapes {tuple(k1.shape)} and {tuple(k2.shape)}; give both as (N, N), or "
            "both as (N, N, C, C)"
        )
    return k1.detach().cpu().double(), k2.detach().cpu().double()


def _norm(k: Tensor, name: str) -> float:
    norm = float(torch.linalg.vector_norm(k))
    if norm == 0.0:
        raise ValueError(f"{name} is zero; what is relative to it is not defined")
    return norm


def _unit(k: Tensor, name: str) -> Tensor:
    return k / _norm(k, name)


def _centred(k: Tensor, name: str) -> Tensor:
    centred = k - k.mean(0, keepdim=True)
    centred = centred - centred.mean(1, keepdim=True)
    if float(torch.linalg.vector_norm(centred)) <= CONSTANT * float(torch.linalg.vector_norm(k)):
        raise ValueError(f"{name} is constant over rows or columns: nothing is left of it when it is centred")
    return centred
