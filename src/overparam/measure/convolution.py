"""Convolutions whose second derivative is cheap, put in place of PyTorch's while a graph is built.

PyTorch differentiates a convolution's backward pass by convolutions with the roles of batch and channels exchanged,
which its CPU kernels run slowly. The same derivatives are one forward and one backward convolution:

    for the backward map (g, x, w) ↦ (∂x, ∂w) and cotangents (X, W) of its results
    ∂g = conv(X, w) + conv(x, W),    ∂x = convᵀ(g, W),    ∂w = weight gradient of (X, g)

A batch norm in eval mode right after a convolution is an affine map per channel. It is folded into the weights inside
the graph, `w·γ/√(v + ε)`, so that its derivatives cost nothing per pixel; the function and all its derivatives with
respect to w, γ and β stay the same.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function
from torch.overrides import TorchFunctionMode

_convolution = torch.ops.aten.convolution
_backward = torch.ops.aten.convolution_backward
Geometry = tuple[list[int], list[int], list[int], int]  # stride, padding, dilation, groups


def _conv(x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry) -> Tensor:
    stride, padding, dilation, groups = geometry
    found: Tensor = _convolution(x, w, b, stride, padding, dilation, False, [0, 0], groups)
    return found


def _grads(g: Tensor, x: Tensor, w: Tensor, geometry: Geometry, mask: Sequence[bool]) -> tuple[Tensor | None, ...]:
    stride, padding, dilation, groups = geometry
    bias = [w.shape[0]] if mask[2] else None
    found = _backward(g, x, w, bias, stride, padding, dilation, False, [0, 0], groups, list(mask))
    return tuple(value if asked else None for value, asked in zip(found, mask, strict=True))


class _Convolution(Function):
    """conv2d; `twice` says whether second derivatives are wanted or only that the backward pass is linear."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry, twice: bool) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.settings = geometry, b is not None, twice
        return _conv(x, w, b, geometry)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, w = ctx.saved_tensors
        geometry, bias, twice = ctx.settings
        mask = ctx.needs_input_grad[0], ctx.needs_input_grad[1], bias and ctx.needs_input_grad[2]
        if torch.is_grad_enabled():
            parts = _ConvolutionBackward.apply(grads[0], x, w, geometry, mask, twice)  # type: ignore[no-untyped-call]
            return *parts, None, None
        return *_grads(grads[0], x, w, geometry, mask), None, None


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
        terms = []
        if into_x is not None:
            terms.append(_conv(into_x, w, None, geometry))
        if into_w is not None:
            terms.append(_conv(x, into_w, None, geometry))
        if into_b is not None:
            terms.append(into_b[:, None, None].expand_as(g[0]))
        into_g = sum(terms[1:], terms[0]) if terms else None
        if into_g is not None and into_g.shape != g.shape:
            into_g = into_g.expand(g.shape)
        mask = (twice and into_w is not None and ctx.needs_input_grad[1], twice and into_x is not None, False)
        like_x, like_w = (x if into_x is None else into_x), (w if into_w is None else into_w)
        more = _grads(g, like_x, like_w, geometry, mask) if any(mask) else (None, None)
        return into_g, more[0], more[1], None, None, None


class SecondOrder(TorchFunctionMode):
    """While it is active, plain 2-d convolutions and eval-mode batch norms after them take the forms above."""

    def __init__(self, twice: bool = True) -> None:
        super().__init__()
        self.twice = twice
        self.seen: dict[int, tuple[Tensor, int, tuple[Tensor, Tensor, Tensor | None, Geometry]]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (F.conv2d, torch.conv2d) and (call := _plain(*args, **kwargs)) is not None:
            return self.convolution(*call)
        if func is F.batch_norm:
            return self.batch_norm(*args, **kwargs)
        return func(*args, **kwargs)

    def convolution(self, x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry) -> Tensor:
        out: Tensor = _Convolution.apply(x, w, b, geometry, self.twice)  # type: ignore[no-untyped-call]
        self.seen[id(out)] = out, out._version, (x, w, b, geometry)  # holding `out` keeps its id its own
        return out

    def batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        mean, var = running_mean, running_var
        source, version, call = self.seen.get(id(input), (None, 0, None))
        changed = source is None or source._version != version  # an in-place activation may stand in between
        if training or mean is None or var is None or call is None or changed:
            return F.batch_norm(input, mean, var, weight, bias, training, momentum, eps)
        inside, w, b, geometry = call
        scale = (var + eps).rsqrt() if weight is None else weight * (var + eps).rsqrt()
        shift = scale * ((0.0 if b is None else b) - mean) + (0.0 if bias is None else bias)
        return self.convolution(inside, w * scale[:, None, None, None], shift, geometry)


def _plain(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> tuple[Tensor, Tensor, Tensor | None, Geometry] | None:
    """The call as tensors and geometry, or `None` for the forms that stay PyTorch's: named padding, no batch axis."""
    if isinstance(padding, str) or input.ndim != 4:
        return None
    return input, weight, bias, (_pair(stride), _pair(padding), _pair(dilation), groups)


def _pair(value: int | Sequence[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else [*value] * (2 // len(value))
