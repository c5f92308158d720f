"""ReLU and max-pooling, which are linear between kinks, with second derivatives that do only what is needed.

The backward pass is linear in its cotangent and constant in x wherever it has a derivative. For ReLU PyTorch fills that
zero in and adds it; for max-pooling it gathers from a copy with channels first, after which every operation behind it
copies once more.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function

_masked = torch.ops.aten.threshold_backward
_pooled = torch.ops.aten.max_pool2d_with_indices
_scattered = torch.ops.aten.max_pool2d_with_indices_backward
PoolWindow = tuple[list[int], list[int], list[int], list[int], bool]  # kernel, stride, padding, dilation, ceil_mode


class ReLU(Function):
    """max(x, 0). With `by_input` it is the input that is kept, so that the output may be changed in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, by_input: bool) -> Tensor:
        out = torch.relu(x)
        ctx.save_for_backward(x if by_input else out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (kept,) = ctx.saved_tensors
        return _Mask.apply(grads[0], kept) if torch.is_grad_enabled() else _masked(grads[0], kept, 0.0), None  # type: ignore[no-untyped-call]


class _Mask(Function):
    """Cotangents where the input, and so the output, is positive."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, kept: Tensor) -> Tensor:
        ctx.save_for_backward(kept)
        found: Tensor = _masked(g, kept, 0.0)
        return found

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        (kept,) = ctx.saved_tensors
        return _masked(cotangents[0], kept, 0.0), None


class MaxPool(Function):
    """max_pool2d of a batch (N, C, H, W)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: PoolWindow) -> Tensor:
        out, places = _pooled(x, *window)
        ctx.save_for_backward(places)
        ctx.settings = window, x.size(), x.stride()
        found: Tensor = out
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (places,) = ctx.saved_tensors
        return _Scatter.apply(grads[0], places, *ctx.settings), None  # type: ignore[no-untyped-call]


class _Scatter(Function):
    """Cotangents to the places of the maxima."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, places: Tensor, window: PoolWindow, size: Sequence[int], stride: Sequence[int]
    ) -> Tensor:
        ctx.save_for_backward(places)
        like = torch.empty_strided(size, stride, dtype=g.dtype, device=g.device)  # shape and order count
        found: Tensor = _scattered(g, like, *window, places)
        return found

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        (places,) = ctx.saved_tensors
        return _gathered(cotangents[0], places), None, None, None, None


def _gathered(values: Tensor, places: Tensor) -> Tensor:
    """The values (N, C, H, W) at flat places (N, C, h, w) of each plane, in the order of memory of the places."""
    if not places.is_contiguous(memory_format=torch.channels_last):
        return values.flatten(2).gather(2, places.flatten(2)).view_as(places)
    last, at = values.permute(0, 2, 3, 1).flatten(1, 2), places.permute(0, 2, 3, 1)
    return last.gather(1, at.flatten(1, 2)).view_as(at).permute(0, 3, 1, 2)
