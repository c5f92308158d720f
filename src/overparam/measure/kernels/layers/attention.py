"""Multi-head self-attention written out, so that its two linear maps can be seen."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

AffineMap = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def self_attention(
    linear: AffineMap,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    average_attn_weights: bool = True,
    is_causal: bool = False,
    **others: Any,
) -> tuple[Tensor, Tensor | None] | None:
    """What `multi_head_attention_forward` gives for batched inputs (T, N, E), all three the same tensor.

    `None` where it is asked for something else: other keys, extra keys, projections of their own, dropout.
    """
    plain = query is key is value and query.ndim == 3 and in_proj_weight is not None and not use_separate_proj_weight
    extra = bias_k is not None or bias_v is not None or add_zero_attn or (training and dropout_p > 0.0)
    if not plain or extra or any(each is not None for each in others.values()):
        return None
    assert in_proj_weight is not None
    t, n, e = query.shape
    projected = torch.unflatten(linear(query, in_proj_weight, in_proj_bias), 2, (3, num_heads, e // num_heads))
    q, k, v = projected.permute(2, 1, 3, 0, 4)  # (N, heads, T, head size) each
    scores = q @ k.mT / math.sqrt(e // num_heads)
    for mask in (attn_mask, None if key_padding_mask is None else key_padding_mask[:, None, None, :]):
        if mask is not None:
            scores = scores + _additive(mask, scores, num_heads)
    weights = scores.softmax(dim=-1)
    mixed = (weights @ v).permute(2, 0, 1, 3).reshape(t, n, e)
    shown = (weights.mean(1) if average_attn_weights else weights) if need_weights else None
    return linear(mixed, out_proj_weight, out_proj_bias), shown


def _additive(mask: Tensor, scores: Tensor, num_heads: int) -> Tensor:
    """A mask as what is added to the scores; (N·heads, T, T) masks are given their own axis of heads."""
    if mask.ndim == 3:
        mask = torch.unflatten(mask, 0, (-1, num_heads))
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=scores.dtype).masked_fill(mask, -math.inf)
    return mask.to(scores.dtype)
