"""Features of two sets of examples → their block of the kernel, by products of matrices as large as can be.

A layer's share of the kernel is `Θ[i, j, a, b] = Σ_{t, u} (left_it · left_ju) (right_iat · right_jbu)`: for a linear
layer on vectors the Gram matrix of its inputs times that of its sensitivities. Where examples have more positions than
the layer has inputs, writing the derivatives out first is cheaper. Both forms are exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from overparam.measure.features import Feature, Outer

Outputs = Literal["full", "trace"]
TILE = 384  # rows of a tile: with the columns of a kernel of some thousand rows its products still fit a cache


@dataclass(frozen=True)
class Factor:
    """A feature laid out for products: `right` (T, n·e, q), `left` (T, n, p), ids (T, n), or None with T = 1.

    An example has e = C rows for a full kernel; for a trace it has one, in which its outputs stand side by side.
    """

    left: Tensor | None
    right: Tensor

    def part(self, start: int, stop: int, each: int) -> "Factor":
        left = None if self.left is None else self.left[:, start:stop]
        return Factor(left, self.right[:, start * each : stop * each])

    @property
    def num_bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in (self.left, self.right) if p is not None)


def factor(feature: Feature, outputs: Outputs) -> Factor:
    """The cheaper of the two forms, by the multiplications per pair of examples."""
    if isinstance(feature, Outer) and _pairs_pay(feature, outputs):
        left, right = feature.left.transpose(0, 1), feature.right.permute(2, 0, 1, 3)
        return Factor(left.contiguous(), _stacked(right, outputs))
    return Factor(None, _stacked(feature.rows.unsqueeze(0), outputs))


def _pairs_pay(feature: Outer, outputs: Outputs) -> bool:
    _, num_outputs, positions, q = feature.right.shape
    squared = num_outputs**2 if outputs == "full" else num_outputs
    inner = 1 if feature.num_ids else feature.width
    return positions**2 * (inner + squared * q) <= squared * feature.width * q


def _stacked(right: Tensor, outputs: Outputs) -> Tensor:
    """(T, n, C, q) → (T, n·C, q), or (T, n, C·q)."""
    return right.reshape(len(right), -1, right.shape[3]) if outputs == "full" else right.flatten(2)


def fill(kernel: Tensor, a: Sequence[Factor], b: Sequence[Factor], each: int, symmetric: bool) -> None:
    """Write the block of two sets of examples, (n1·e, n2·e); of a symmetric one only what lies right of its tiles."""
    step = max(1, TILE // each)
    for start in range(0, len(kernel) // each, step):
        stop = min(start + step, len(kernel) // each)
        first = start if symmetric else 0
        tile = kernel[start * each : stop * each, first * each :].zero_()
        for left, right in zip(a, b, strict=True):
            last = right.right.shape[1] // each
            _accumulate(tile, left.part(start, stop, each), right.part(first, last, each), each)
        if symmetric:
            _mirror(kernel, start * each, stop * each)


def _accumulate(tile: Tensor, a: Factor, b: Factor, each: int) -> None:
    if a.left is None or b.left is None:
        tile.addmm_(a.right[0], b.right[0].T)
        return
    for left, right in zip(a.left, a.right, strict=True):
        for other, back in zip(b.left, b.right, strict=True):
            gram = _inner(left, other).to(tile.dtype).repeat_interleave(each, dim=1).unsqueeze(1)
            _by_example(tile, each).addcmul_(_by_example(right @ back.T, each), gram)


def _by_example(rows: Tensor, each: int) -> Tensor:
    return torch.unflatten(rows, 0, (-1, each))


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of rows; of ids, whether they are the same."""
    return a @ b.T if a.is_floating_point() else a.unsqueeze(1) == b.unsqueeze(0)


def _mirror(kernel: Tensor, start: int, stop: int) -> None:
    """Below the diagonal a symmetric kernel is what lies above it, to the last bit."""
    square = kernel[start:stop, start:stop]
    square.copy_(square.triu() + square.triu(1).T)
    kernel[stop:, start:stop] = kernel[start:stop, stop:].T
