"""Parts of torch.nn that networks of the catalogue are made of."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Through(nn.Module):
    """Parts under their names, and a function that says how inputs go through them."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **parts: nn.Module) -> None:
        super().__init__()
        self.way = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Any:
        return self.way(self, x)


def last_step(net: Any, x: Tensor) -> Tensor:
    out: Tensor = net.head(net.body(x)[0][:, -1])
    return out


def recurrent(kind: Callable[..., nn.Module], **options: Any) -> nn.Module:
    width = 10 if options.get("bidirectional") else 5
    return Through(last_step, body=kind(4, 5, batch_first=True, **options), head=nn.Linear(width, 3))


def recurrent_cells(net: Any, x: Tensor) -> Tensor:
    state = x.new_zeros(len(x), 5)
    for step in x.unbind(1):
        state = net.cell(step, state)
    out: Tensor = net.head(state)
    return out


def encoder(**options: Any) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 1, enable_nested_tensor=not options.get("norm_first", False))


def with_padding(net: Any, x: Tensor) -> Tensor:
    """The mean over padded places too: without gradients PyTorch's fast path writes zeros there."""
    out: Tensor = net.head(net.body(net.embed(x), src_key_padding_mask=x == 0).mean(1))
    return out


def masked_encoder(**options: Any) -> nn.Module:
    return Through(with_padding, embed=nn.Embedding(24, 8), body=encoder(**options), head=nn.Linear(8, 3))


def both_sides(net: Any, x: Tensor) -> Tensor:
    mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
    out: Tensor = net.head(net.body(x, x.flip(1), tgt_mask=mask)[:, -1])
    return out


def attended(net: Any, x: Tensor) -> Tensor:
    out: Tensor = net.head(net.body(x, x, x, need_weights=False)[0].mean(1))
    return out


class CausalMask(nn.Module):
    """A mask of −∞ above the diagonal, kept as a buffer: that of GPT-2 and of CLIP's text encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body = nn.Embedding(24, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)
        self.register_buffer("mask", torch.full((6, 6), -torch.inf).triu(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.body(x, x, x, attn_mask=self.mask)[0]
        out: Tensor = self.head(x[:, -1])
        return out


class Prototypes(nn.Module):
    """Outputs are distances to learned points."""

    def __init__(self, distance: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.points, self.distance = nn.Linear(4, 5), nn.Parameter(torch.randn(3, 5)), distance

    def forward(self, x: Tensor) -> Tensor:
        return -self.distance(torch.tanh(self.body(x)), self.points)


def far(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b)


def apart(a: Tensor, b: Tensor) -> Tensor:
    return (a.unsqueeze(1) - b).square().sum(2)


def dense(*between: nn.Module, width: int = 6) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), *between, nn.Linear(width, 3))


def headed(*body: nn.Module, features: int) -> nn.Module:
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(features, 3))


def bilinear(net: Any, x: Tensor) -> Tensor:
    out: Tensor = net.head(torch.tanh(net.body(x[:, :2], x[:, 2:])))
    return out


def bag(net: Any, x: Tensor) -> Tensor:
    out: Tensor = net.head(torch.tanh(net.body(x)))
    return out


class EvoNorm(nn.Module):
    """Normalization and activation in one, by the spread within groups (Liu et al. 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(v.view(1, -1, 1, 1)) for v in (torch.ones(channels), torch.zeros(channels))
        )
        self.v = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        groups = x.reshape(n, 2, c // 2, h, w)
        spread = groups.float().var((2, 3, 4), keepdim=True).add(1e-5).sqrt().to(x.dtype).expand_as(groups)
        return x * torch.sigmoid(self.v * x) / spread.reshape(x.shape) * self.weight + self.bias


def outputs_of(kind: Callable[[Tensor], Any]) -> nn.Module:
    return Through(lambda net, x: kind(net.body(x)), body=dense(nn.GELU()))


def gated(net: Any, x: Tensor) -> Tensor:
    return torch.addcmul(net.skip(x), torch.sigmoid(net.gate(x)), net.body(x))


def normed_images(norm: Callable[[], nn.Module]) -> nn.Module:
    return headed(nn.Conv2d(2, 4, 3), norm(), nn.SiLU(), features=64)


def normed_rows(norm: Callable[[], nn.Module]) -> nn.Module:
    return dense(norm(), nn.Tanh())


def with_activation(kind: Callable[[], nn.Module]) -> nn.Module:
    return dense(kind())
