"""The derivative of a layer with respect to its parameters, as a product of what goes in and what comes back.

Each builder takes the input x (n, k, …) of a layer and the sensitivity `∂f_c/∂y` (n, C, k, …) of its output. A batch of
n examples has k rows per example: more than one where a model folds tokens or frames into the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Outer:
    """`∂f_c/∂Wᵢ = Σ_t right[i, c, t] ⊗ left[i, t]`: left (n, T, p), right (n, C, T, q).

    With a `bias`, `∂f_c/∂bᵢ = Σ_t right[i, c, t]` too. Token ids (n, T) stand for one-hot rows of length `num_ids`.
    """

    left: Tensor
    right: Tensor
    bias: bool = False
    num_ids: int = 0

    @property
    def width(self) -> int:
        """p, the number of columns of the derivative."""
        return self.num_ids or self.left.shape[2]

    def rows(self) -> list[Tensor]:
        """The derivatives written out: (n, C, q·p), and (n, C, q) of the bias."""
        left = F.one_hot(self.left, self.num_ids).to(self.right.dtype) if self.num_ids else self.left
        n, c, t, q = self.right.shape
        weight = (self.right.transpose(2, 3).reshape(n, c * q, t) @ left).reshape(n, c, -1)
        return [weight, self.right.sum(2)] if self.bias else [weight]


@dataclass(frozen=True)
class Rows:
    """The derivatives themselves, (n, C, q)."""

    values: Tensor

    def rows(self) -> list[Tensor]:
        return [self.values]


Feature = Outer | Rows
Build = Callable[[Tensor, Tensor], Feature]


def affine(scale: float | None, bias: bool) -> Build:
    """Linear layer `y = scale·x Wᵀ + b`; `scale` is None where W is not asked for."""

    def build(x: Tensor, s: Tensor) -> Feature:
        return _outer(x.flatten(1, -2), s.flatten(2, -2), scale, bias)

    return build


def _outer(x: Tensor, s: Tensor, scale: float | None, bias: bool) -> Feature:
    if scale is None:
        return Rows(s.sum(2))
    return Outer(x if scale == 1.0 else scale * x, s, bias)


@dataclass(frozen=True)
class Window:
    """Kernel size, stride, padding and dilation of a two-dimensional convolution."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int = 1


def convolution(window: Window, scale: float | None, bias: bool) -> Build:
    """Convolution as a linear layer on patches, one position per pixel of the output."""

    def build(x: Tensor, s: Tensor) -> Feature:
        n, k, *image = x.shape
        x = x.reshape(n * k, *image)
        patches = F.unfold(x, window.kernel, window.dilation, window.padding, window.stride)
        patches = patches.transpose(1, 2).reshape(n, -1, patches.shape[1])  # (n, k·L, p)
        s = s.flatten(4).transpose(3, 4).flatten(2, 3)  # (n, C, k·L, q)
        if window.groups > 1:
            return _grouped(patches, s, window.groups, scale, bias)
        return _outer(patches, s, scale, bias)

    return build


def _grouped(patches: Tensor, s: Tensor, groups: int, scale: float | None, bias: bool) -> Feature:
    parts = [s.sum(2)] if bias else []
    if scale is not None:
        inside, back = torch.unflatten(patches, 2, (groups, -1)), torch.unflatten(s, 3, (groups, -1))
        parts.append(scale * torch.einsum("ntgp,nctgq->ncgqp", inside, back).flatten(2))
    return Rows(torch.cat(parts, dim=2))


def channel_affine(weight: bool, bias: bool) -> Build:
    """`y = γ x̂ + β` per channel, axis 1 of (N, channels, …), from x̂."""

    def build(x: Tensor, s: Tensor) -> Feature:
        n, k, channels = x.shape[:3]
        x = x.reshape(n, k, channels, -1)
        return _scaled_and_shifted("nkhl,nckhl->nch", x, s.reshape(n, -1, k, channels, x.shape[3]), weight, bias)

    return build


def feature_affine(num_axes: int, weight: bool, bias: bool) -> Build:
    """`y = γ x̂ + β` per feature, the last `num_axes` axes, from x̂."""

    def build(x: Tensor, s: Tensor) -> Feature:
        inside = x.flatten(-num_axes).flatten(1, -2)
        return _scaled_and_shifted("nth,ncth->nch", inside, s.flatten(-num_axes).flatten(2, -2), weight, bias)

    return build


def _scaled_and_shifted(product: str, x: Tensor, s: Tensor, weight: bool, bias: bool) -> Rows:
    """Both derivatives by the same sum over positions: for β it is that of the sensitivities alone."""
    back, result = product.partition(",")[2].split("->")
    parts = [torch.einsum(product, x, s)] if weight else []
    parts += [torch.einsum(f"{back}->{result}", s)] if bias else []
    return Rows(torch.cat(parts, dim=2))


def lookup(num_ids: int, padding: int | None) -> Build:
    """Embedding: ids stand for one-hot rows; the row of `padding` gets no gradient."""

    def build(x: Tensor, s: Tensor) -> Feature:
        ids, right = x.flatten(1), s.flatten(2, -2)
        if padding is not None:
            right = right * (ids != padding)[:, None, :, None]
        return Outer(ids, right, num_ids=num_ids)

    return build


def same_padding(x: Tensor, kernel: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """x padded as `padding="same"` pads it: the odd pixel goes to the right."""
    total = [d * (size - 1) for size, d in zip(kernel, dilation, strict=True)]
    return F.pad(x, [each for t in reversed(total) for each in (t // 2, t - t // 2)])
