"""Features of two sets of examples → their block of the kernel, by products of matrices as large as can be.

A layer's share of the kernel is `Θ[i, j, a, b] = Σ_{t, u} (left_it · left_ju) (right_iat · right_jbu)`: for a linear
layer on vectors the Gram matrix of its inputs times that of its sensitivities. Where examples have more positions than
the layer has inputs, writing the derivatives out first is cheaper. Both forms are exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from overparam.measure.kernels.layers.features import Feature, Outer

Outputs = Literal["full", "trace"]
TILE, WIDE = 384, 1024  # rows and columns of a product: with its factors it stays near the processor


@dataclass(frozen=True)
class Factor:
    """A feature laid out for products: `right` (T, n·e, q), `left` (T, n, p), ids (T, n), or None with T = 1.

    An example has e = C rows for a full kernel; for a trace it has one, in which its outputs stand side by side. `bias`
    adds 1 to the inner products of `left`.
    """

    left: Tensor | None
    right: Tensor
    bias: bool = False

    def part(self, start: int, stop: int, each: int) -> "Factor":
        left = None if self.left is None else self.left[:, start:stop]
        return Factor(left, self.right[:, start * each : stop * each], self.bias)

    def square_along(self, num_examples: int, chosen: Tensor | slice, cotangent: Tensor) -> float:
        """`‖Σ_ic v_ic ∂f_c(x_i)/∂θ‖²` over the chosen examples, v the cotangent (m, C)."""
        right = self.right.reshape(len(self.right), num_examples, cotangent.shape[1], -1)
        if self.left is None:
            everywhere = cotangent.new_zeros(right.shape[1:3])
            everywhere[chosen] = cotangent
            return _square(everywhere.flatten() @ right[0].flatten(0, 1))
        back = torch.einsum("tncq,nc->tnq", right[:, chosen], cotangent).flatten(0, 1)
        left = self.left[:, chosen].flatten(0, 1)
        if left.is_floating_point():
            weight = back.T @ left
        else:
            weight = back.new_zeros(int(left.max()) + 1, back.shape[1]).index_add_(0, left, back)
        return _square(weight) + (_square(back.sum(0)) if self.bias else 0.0)

    @property
    def num_bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in (self.left, self.right) if p is not None)


def factors(feature: Feature, outputs: Outputs) -> list[Factor]:
    """The cheaper of the two forms, by the multiplications per pair of examples."""
    if isinstance(feature, Outer) and _pairs_pay(feature, outputs):
        left, right = feature.left.transpose(0, 1), feature.right.permute(2, 0, 1, 3)
        return [Factor(left.contiguous(), _stacked(right, outputs), feature.bias)]
    return [Factor(None, _stacked(rows.unsqueeze(0), outputs)) for rows in feature.rows()]


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
    for rows in _steps(0, len(kernel) // each, TILE // each):
        first = rows[0] if symmetric else 0
        for columns in _steps(first, kernel.shape[1] // each, WIDE // each):
            tile = kernel[rows[0] * each : rows[1] * each, columns[0] * each : columns[1] * each].zero_()
            for left, right in zip(a, b, strict=True):
                _accumulate(tile, left.part(*rows, each), right.part(*columns, each), each)
        if symmetric:
            _mirror(kernel, rows[0] * each, rows[1] * each)


def _steps(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    """Steps of about the size, all alike: a thin last one would be slow."""
    count = max(1, round((stop - start) / max(1, size)))
    bounds = [start + (stop - start) * i // count for i in range(count + 1)]
    return list(pairwise(bounds))


def _accumulate(tile: Tensor, a: Factor, b: Factor, each: int) -> None:
    if a.left is None or b.left is None:
        tile.addmm_(a.right[0], b.right[0].T)
        return
    for left, right in zip(a.left, a.right, strict=True):
        for other, back in zip(b.left, b.right, strict=True):
            gram = (_inner(left, other).to(tile.dtype) + float(a.bias)).repeat_interleave(each, dim=1).unsqueeze(1)
            _by_example(tile, each).addcmul_(_by_example(right @ back.T, each), gram)


def _square(value: Tensor) -> float:
    return float(torch.linalg.vector_norm(value)) ** 2


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
