"""Convolution whose second derivative is cheap.

PyTorch differentiates a convolution's backward pass by convolutions with the roles of batch and channels exchanged,
which its CPU kernels run slowly. The same derivatives are one forward and one backward convolution:

    for the backward map (g, x, w) ↦ (∂x, ∂w) and cotangents (X, W) of its results
    ∂g = conv(X, w) + conv(x, W),    ∂x = convᵀ(g, W),    ∂w = weight gradient of (X, g)
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import Function

_convolution = torch.ops.aten.convolution
_backward = torch.ops.aten.convolution_backward
Geometry = tuple[list[int], list[int], list[int], int]  # stride, padding, dilation, groups
Known = Callable[[], Tensor]


class Mode(Protocol):
    """Whether a backward pass taken now is to be differentiated in x and w too."""

    @property
    def curved(self) -> bool: ...


def _conv(x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry) -> Tensor:
    stride, padding, dilation, groups = geometry
    found: Tensor = _convolution(x, w, b, stride, padding, dilation, False, [0, 0], groups)
    return found


def _grads(g: Tensor, x: Tensor, w: Tensor, geometry: Geometry, mask: Sequence[bool]) -> tuple[Tensor | None, ...]:
    stride, padding, dilation, groups = geometry
    bias = [w.shape[0]] if mask[2] else None
    found = _backward(g, x, w, bias, stride, padding, dilation, False, [0, 0], groups, list(mask))
    return tuple(value if asked else None for value, asked in zip(found, mask, strict=True))


class Convolution(Function):
    """conv2d; the mode says whether second derivatives are wanted or only that the backward pass is linear.

    `known` gives the result, where the caller has a cheaper way to it.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry, mode: Mode, known: Known | None = None
    ) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.settings = geometry, b is not None, mode
        return _conv(x, w, b, geometry) if known is None else known()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, w = ctx.saved_tensors
        geometry, bias, mode = ctx.settings
        mask = ctx.needs_input_grad[0], ctx.needs_input_grad[1], bias and ctx.needs_input_grad[2]
        if torch.is_grad_enabled():
            parts = _ConvolutionBackward.apply(grads[0], x, w, geometry, mask, mode.curved)  # type: ignore[no-untyped-call]
            return *parts, None, None, None
        return *_grads(grads[0], x, w, geometry, mask), None, None, None


class _ConvolutionBackward(Function):
    """(g, x, w) ↦ (∂x, ∂w, ∂b); differentiable once more."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, w: Tensor, geometry: Geometry, mask: tuple[bool, bool, bool], twice: bool
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(g, x, w)
        ctx.set_materialize_grads(False)
        ctx.settings = geometry, twice
        return _grads(g, x, w, geometry, mask)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        g, x, w = ctx.saved_tensors
        geometry, twice = ctx.settings
        into_x, into_w, into_b = cotangents
        into_g = _tangent(into_x, into_w, into_b, ctx.saved_tensors, geometry)
        mask = (twice and into_w is not None and ctx.needs_input_grad[1], twice and into_x is not None, False)
        like_x, like_w = (x if into_x is None else into_x), (w if into_w is None else into_w)
        more = _grads(g, like_x, like_w, geometry, mask) if any(mask) else (None, None)
        return into_g, more[0], more[1], None, None, None


def _tangent(
    into_x: Tensor | None, into_w: Tensor | None, into_b: Tensor | None, saved: Sequence[Tensor], geometry: Geometry
) -> Tensor | None:
    """`conv(X, w) + conv(x, W) + B`."""
    g, x, w = saved
    pairs = [(into_x, w)] if into_x is not None else []
    pairs += [(x, into_w)] if into_w is not None else []
    if not pairs:
        return None if into_b is None else into_b[:, None, None].expand(g.shape)
    total = _conv(*pairs[0], into_b, geometry)
    for pair in pairs[1:]:
        total += _conv(*pair, None, geometry)
    return total
