"""Alignment, distance, drift, labels and effective rank: closed forms and laws."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.kernels.similarity import (
    effective_rank,
    kernel_alignment,
    kernel_distance,
    kernel_drift,
    label_kernel,
)

F64 = torch.float64


def features(count: int = 8, size: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(count, size, generator=torch_generator(seed, "features"), dtype=F64)


def gram(count: int = 8, size: int = 5, seed: int = 0) -> Tensor:
    rows = features(count, size, seed)
    return rows @ rows.T


def blocks(seed: int = 0) -> Tensor:
    """(4, 4, 2, 2), of the matrix `gram(8)`."""
    return gram(seed=seed).reshape(4, 2, 4, 2).permute(0, 2, 1, 3)


def test_centred_alignment_is_linear_cka() -> None:
    """`‖YᵀX‖²_F/(‖XᵀX‖_F ‖YᵀY‖_F)` of centred features (Kornblith et al. 2019)."""
    x, y = features(9, 4), features(9, 3, seed=1)
    x0, y0 = x - x.mean(0), y - y.mean(0)
    norms = torch.linalg.matrix_norm(x0.T @ x0) * torch.linalg.matrix_norm(y0.T @ y0)
    true = float((y0.T @ x0).square().sum() / norms)
    assert kernel_alignment(x @ x.T, y @ y.T, centred=True) == pytest.approx(true, rel=1e-12)
    moved = (x + 5.0) @ (x + 5.0).T
    assert kernel_alignment(moved, y @ y.T, centred=True) == pytest.approx(true, rel=1e-12)
    assert kernel_alignment(moved, y @ y.T) != pytest.approx(true, rel=0.1)


def test_blocks_are_centred_over_examples() -> None:
    """Jacobian rows (N, C, P), centred over N for each output."""
    jacobian = torch.randn(6, 2, 7, generator=torch_generator(0, "jacobian"), dtype=F64)
    other = torch.einsum("icp,jdp->ijcd", jacobian**3, jacobian**3)
    centred = [j - j.mean(0) for j in (jacobian, jacobian**3)]
    true = kernel_alignment(*(torch.einsum("icp,jdp->ijcd", j, j) for j in centred))
    found = kernel_alignment(torch.einsum("icp,jdp->ijcd", jacobian, jacobian), other, centred=True)
    assert found == pytest.approx(true, rel=1e-12)


@given(seed=st.integers(0, 200), factor=st.floats(1e-3, 1e3), centred=st.booleans())
@settings(max_examples=40)
def test_alignment_is_a_cosine(seed: int, factor: float, centred: bool) -> None:
    a, b = gram(seed=seed), gram(seed=seed + 1000)
    found = kernel_alignment(a, b, centred=centred)
    assert 0.0 <= found <= 1.0
    assert found == pytest.approx(kernel_alignment(factor * b, a, centred=centred), rel=1e-12)
    assert kernel_alignment(a, factor * a, centred=centred) == pytest.approx(1.0, abs=1e-14)
    order = torch.randperm(8, generator=torch_generator(seed, "order"))
    permuted = (k[order][:, order] for k in (a, b))
    assert found == pytest.approx(kernel_alignment(*permuted, centred=centred), rel=1e-12)
    assert kernel_distance(a, b) == pytest.approx(1.0 - kernel_alignment(a, b), abs=1e-14)
    assert kernel_distance(a, b) == pytest.approx(kernel_distance(b, factor * a), rel=1e-12)


def test_small_distances_keep_their_digits() -> None:
    """Orthogonal to the identity by ε: 1 − 1/√(1 + ε²) = ε²/2, which 1 − cosine would round to 0."""
    eye, off = torch.eye(2, dtype=F64), torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=F64)
    assert kernel_distance(eye, eye + 1e-9 * off) == pytest.approx(0.5e-18, rel=1e-6, abs=0.0)
    assert kernel_distance(eye, eye) == 0.0
    assert kernel_distance(eye, -eye) == pytest.approx(2.0)


def test_drift_is_relative_to_the_start() -> None:
    start = gram()
    assert kernel_drift(start, 3.0 * start) == pytest.approx(2.0, rel=1e-14)
    assert kernel_drift(start, start) == 0.0
    assert kernel_drift(4.0 * start, start) == pytest.approx(0.75, rel=1e-14)
    assert kernel_drift(torch.ones(2, 2), torch.full((2, 2), 1.0 + 2**-20)) == 2**-20  # float32, subtracted in float64


def test_blocks_are_compared_as_their_matrix() -> None:
    for measure in (kernel_alignment, kernel_distance, kernel_drift):
        assert measure(blocks(), blocks(1)) == pytest.approx(measure(gram(), gram(seed=1)), rel=1e-12)
    assert effective_rank(blocks()) == pytest.approx(effective_rank(gram()), rel=1e-10)


def test_sums_of_half_precision_kernels_do_not_overflow() -> None:
    half = torch.full((100, 100), 3e4, dtype=torch.float16)
    assert kernel_alignment(half, half) == pytest.approx(1.0, rel=1e-12)


def test_label_kernels() -> None:
    labels = torch.tensor([2, 0, 2, 1])
    one_hot = torch.nn.functional.one_hot(labels, 5).double()
    assert torch.equal(label_kernel(labels), one_hot @ one_hot.T)
    assert torch.equal(label_kernel(labels, 5), label_kernel(one_hot))
    assert label_kernel(torch.tensor([1.0, -2.0])).tolist() == [[1.0, -2.0], [-2.0, 4.0]]
    assert label_kernel(labels).dtype is F64


def test_a_kernel_of_centred_one_hot_rows_aligns_fully_with_its_labels() -> None:
    rows = torch.nn.functional.one_hot(torch.tensor([0, 1, 1, 2, 2, 2]), 3).double() + 7.0
    found = kernel_alignment(rows @ rows.T, label_kernel(torch.tensor([0, 1, 1, 2, 2, 2])), centred=True)
    assert found == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("values", "true"),
    [
        ([1.0, 1.0, 1.0, 1.0], 4.0),
        ([5.0, 0.0, 0.0, 0.0], 1.0),
        ([0.5, 0.25, 0.25, 0.0], 2.0**1.5),
        ([1.0, 1.0, -1e-17, 0.0], 2.0),
    ],
)
def test_effective_rank_is_the_exponential_of_an_entropy(values: list[float], true: float) -> None:
    q, _ = torch.linalg.qr(features(4, 4))
    matrix = (q * torch.tensor(values, dtype=F64)) @ q.T
    assert effective_rank(matrix) == pytest.approx(true, rel=1e-12)
    assert effective_rank(1e6 * matrix) == pytest.approx(true, rel=1e-12)


PAIRED: list[Callable[..., float]] = [kernel_alignment, kernel_distance, kernel_drift]


@pytest.mark.parametrize("measure", PAIRED)
@pytest.mark.parametrize(
    ("first", "second", "match"),
    [
        (torch.eye(2), torch.eye(3), "have shapes (2, 2) and (3, 3); give both as (N, N), or both as (N, N, C, C)"),
        (torch.eye(2), torch.ones(2, 2, 3, 3), "have shapes (2, 2) and (2, 2, 3, 3)"),
        (torch.ones(2, 3), torch.ones(2, 3), "has shape (2, 3) (torch.float32); allowed: floats (N, N)"),
        (torch.eye(2).long(), torch.eye(2), "torch.int64"),
        (torch.eye(2), torch.eye(2) * math.inf, "values that are not finite"),
        (torch.zeros(2, 2), torch.eye(2), "is zero; what is relative to it is not defined"),
    ],
    ids=str,
)
def test_kernels_that_cannot_be_compared_are_errors(
    measure: Callable[..., float], first: Tensor, second: Tensor, match: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(match)):
        measure(first, second)


def test_a_constant_kernel_cannot_be_centred() -> None:
    with pytest.raises(ValueError, match="k2 is constant over rows or columns"):
        kernel_alignment(gram(), torch.full((8, 8), 0.1), centred=True)


@pytest.mark.parametrize(
    ("k", "match"),
    [
        (torch.zeros(2, 2), "k is zero"),
        (torch.tensor([[1.0, 2.0], [0.0, 1.0]]), "k is not symmetric: entries differ from the transposed ones by"),
        (torch.diag(torch.tensor([1.0, -0.1])), "k has eigenvalues from -0.1 to 1; a kernel has none below 0"),
    ],
    ids=str,
)
def test_what_has_no_rank_is_an_error(k: Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        effective_rank(k)


@pytest.mark.parametrize(
    ("y", "options", "match"),
    [
        (torch.tensor([0, 3]), {"num_classes": 3}, "labels lie in 0 … 3; allowed: 0 … 2"),
        (torch.tensor([0, -1]), {}, "labels lie in -1 … 0; allowed: 0 or above"),
        (torch.zeros(2, 2).long(), {}, "labels of shape (2, 2) (torch.int64); allowed: integers (N,)"),
        (torch.tensor([math.nan]), {}, "targets of shape (1,); allowed: finite floats"),
    ],
    ids=str,
)
def test_labels_out_of_range_are_errors(y: Tensor, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=re.escape(match)):
        label_kernel(y, **options)
