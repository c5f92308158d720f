"""Networks of torch.nn alone: layers that public code uses and that small networks of this repository do not."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from tests.support.foreign.network import EXAMPLES, Foreign, padded_tokens, signals, tokens
from tests.support.foreign.torch_parts import (
    CausalMask,
    EvoNorm,
    Prototypes,
    Through,
    apart,
    attended,
    bag,
    bilinear,
    both_sides,
    dense,
    far,
    gated,
    headed,
    last_step,
    masked_encoder,
    normed_images,
    normed_rows,
    outputs_of,
    recurrent,
    recurrent_cells,
    with_activation,
)

IMAGE, SIGNAL, SEQUENCE, ROW = signals(2, 6, 6), signals(2, 8), signals(5, 4), signals(4)
ONCE = {"ggn trace": "only once", "linearize": "only once|derivative"}  # not even the Jacobian has a derivative
LOSES_DIGITS = 1e-3  # parts of the network compute in float32


def recurrences() -> list[Foreign]:
    parts = {"embed": nn.Embedding, "body": nn.LSTM}
    return [
        Foreign("LSTM", "recurrent", lambda: recurrent(nn.LSTM), SEQUENCE),
        Foreign("LSTM, bidirectional", "recurrent", lambda: recurrent(nn.LSTM, bidirectional=True), SEQUENCE),
        Foreign(
            "LSTM, projected",
            "recurrent",
            lambda: Through(last_step, body=nn.LSTM(4, 5, batch_first=True, proj_size=3), head=nn.Linear(3, 3)),
            SEQUENCE,
        ),
        Foreign("GRU, two layers", "recurrent", lambda: recurrent(nn.GRU, num_layers=2, dropout=0.2), SEQUENCE),
        Foreign("RNN", "recurrent", lambda: recurrent(nn.RNN, nonlinearity="tanh"), SEQUENCE),
        Foreign(
            "GRUCell",
            "recurrent",
            lambda: Through(recurrent_cells, cell=nn.GRUCell(4, 5), head=nn.Linear(5, 3)),
            SEQUENCE,
        ),
        Foreign(
            "LSTM on tokens",
            "recurrent",
            lambda: Through(
                lambda net, x: last_step(net, net.embed(x)),
                embed=parts["embed"](24, 4, padding_idx=0),
                body=parts["body"](4, 5, batch_first=True),
                head=nn.Linear(5, 3),
            ),
            padded_tokens(),
        ),
    ]


def attentions() -> list[Foreign]:
    return [
        Foreign("TransformerEncoder, padding mask", "attention", masked_encoder, padded_tokens()),
        Foreign(
            "TransformerEncoder, norm first",
            "attention",
            lambda: masked_encoder(norm_first=True, activation="gelu"),
            padded_tokens(),
        ),
        Foreign("TransformerEncoder, float32", "attention", masked_encoder, padded_tokens(), single=True),
        Foreign(
            "Transformer",
            "attention",
            lambda: Through(both_sides, body=nn.Transformer(8, 2, 1, 1, 8, batch_first=True), head=nn.Linear(8, 3)),
            signals(4, 8),
        ),
        Foreign(
            "MultiheadAttention",
            "attention",
            lambda: Through(
                attended, body=nn.MultiheadAttention(8, 2, batch_first=True, bias=False), head=nn.Linear(8, 3)
            ),
            signals(4, 8),
        ),
        Foreign("mask of −∞ in a buffer", "attention", CausalMask, tokens()),
    ]


def norms() -> list[Foreign]:
    images: dict[str, Callable[[], nn.Module]] = {
        "GroupNorm": lambda: nn.GroupNorm(2, 4),
        "InstanceNorm": lambda: nn.InstanceNorm2d(4, affine=True),
        "BatchNorm": lambda: nn.BatchNorm2d(4),
        "LocalResponseNorm": lambda: nn.LocalResponseNorm(2),
        "EvoNorm": lambda: EvoNorm(4),
    }
    rows: dict[str, Callable[[], nn.Module]] = {
        "GroupNorm without convolution": lambda: nn.GroupNorm(2, 6),
        "LayerNorm": lambda: nn.LayerNorm(6),
        "RMSNorm": lambda: nn.RMSNorm(6),
        "BatchNorm1d": lambda: nn.BatchNorm1d(6),
    }
    exact = {"EvoNorm": LOSES_DIGITS}
    return [
        *(
            Foreign(
                name,
                "norm",
                partial(normed_images, norm),
                IMAGE,
                tolerance=exact.get(name, 1e-5),
            )
            for name, norm in images.items()
        ),
        *(Foreign(name, "norm", partial(normed_rows, norm), ROW) for name, norm in rows.items()),
    ]


def activations() -> list[Foreign]:
    kinds: dict[str, Callable[[], nn.Module]] = {
        "PReLU": nn.PReLU,
        "PReLU per channel": lambda: nn.PReLU(6),
        "GLU": lambda: nn.Sequential(nn.Linear(6, 12), nn.GLU()),
        "Softplus": nn.Softplus,
        "Mish": nn.Mish,
        "Hardswish": nn.Hardswish,
        "RReLU": nn.RReLU,
        "SELU": nn.SELU,
        "ELU in place": lambda: nn.ELU(inplace=True),
        "Softmax": lambda: nn.Softmax(1),
    }
    return [Foreign(name, "activation", partial(with_activation, kind), ROW) for name, kind in kinds.items()]


def convolutions() -> list[Foreign]:
    conv = nn.Conv2d
    return [
        Foreign(
            "Conv1d", "convolution", lambda: headed(nn.Conv1d(2, 4, 3), nn.Tanh(), nn.MaxPool1d(2), features=12), SIGNAL
        ),
        Foreign(
            "Conv3d",
            "convolution",
            lambda: headed(nn.Conv3d(1, 3, 2), nn.Softplus(), nn.AvgPool3d(2), features=3),
            signals(1, 3, 3, 3),
        ),
        Foreign(
            "ConvTranspose2d",
            "convolution",
            lambda: headed(conv(2, 3, 3, stride=2), nn.Tanh(), nn.ConvTranspose2d(3, 2, 2, stride=2), features=32),
            IMAGE,
        ),
        Foreign(
            "Conv2d, grouped and dilated",
            "convolution",
            lambda: headed(
                conv(2, 4, 3, groups=2, dilation=2, padding=1, padding_mode="circular"), nn.GELU(), features=64
            ),
            IMAGE,
        ),
        Foreign(
            "PixelShuffle",
            "convolution",
            lambda: headed(conv(2, 4, 3), nn.Tanh(), nn.PixelShuffle(2), conv(1, 2, 3, stride=2), features=18),
            IMAGE,
        ),
        Foreign(
            "AdaptiveMaxPool2d",
            "convolution",
            lambda: headed(conv(2, 4, 3), nn.Tanh(), nn.AdaptiveMaxPool2d(2), features=16),
            IMAGE,
        ),
        Foreign(
            "AdaptiveMaxPool2d without convolution",
            "convolution",
            lambda: headed(nn.Linear(6, 5), nn.Tanh(), nn.AdaptiveMaxPool2d(2), features=8),
            IMAGE,
        ),
        Foreign(
            "Upsample",
            "convolution",
            lambda: headed(
                conv(2, 2, 3, stride=2), nn.Tanh(), nn.Upsample(scale_factor=2, mode="bilinear"), features=32
            ),
            IMAGE,
        ),
        Foreign(
            "Unfold",
            "convolution",
            lambda: headed(nn.Unfold(3, stride=3), nn.Linear(4, 2), nn.Tanh(), features=36),
            IMAGE,
        ),
        Foreign(
            "channels of a view",
            "convolution",
            lambda: Through(
                lambda net, x: net.head(torch.tanh(net.body(x)).view(len(x), -1)),
                body=conv(2, 3, 3),
                head=nn.Linear(48, 3),
            ),
            IMAGE,
        ),
    ]


def others() -> list[Foreign]:
    return [
        Foreign(
            "Bilinear", "other layer", lambda: Through(bilinear, body=nn.Bilinear(2, 2, 5), head=nn.Linear(5, 3)), ROW
        ),
        Foreign(
            "EmbeddingBag",
            "other layer",
            lambda: Through(bag, body=nn.EmbeddingBag(24, 5, mode="mean"), head=nn.Linear(5, 3)),
            tokens(),
            ONCE,
        ),
        Foreign(
            "EmbeddingBag, padded",
            "other layer",
            lambda: Through(bag, body=nn.EmbeddingBag(24, 5, mode="sum", padding_idx=0), head=nn.Linear(5, 3)),
            padded_tokens(),
            ONCE,
        ),
        Foreign(
            "Embedding, padded",
            "other layer",
            lambda: Through(
                lambda net, x: net.head(torch.tanh(net.body(x).mean(1))),
                body=nn.Embedding(24, 5, padding_idx=0),
                head=nn.Linear(5, 3),
            ),
            padded_tokens(),
        ),
        Foreign(
            "Embedding, gradients by frequency",
            "other layer",
            lambda: Through(
                lambda net, x: net.head(torch.tanh(net.body(x).mean(1))),
                body=nn.Embedding(24, 5, scale_grad_by_freq=True),
                head=nn.Linear(5, 3),
            ),
            tokens(8),
        ),
        Foreign(
            "Embedding, sparse gradients",
            "other layer",
            lambda: Through(
                lambda net, x: net.head(torch.tanh(net.body(x).mean(1))),
                body=nn.Embedding(24, 5, sparse=True),
                head=nn.Linear(5, 3),
            ),
            tokens(),
        ),
        Foreign("distances by cdist", "other layer", lambda: Prototypes(far), ROW, ONCE),
        Foreign("distances by hand", "other layer", lambda: Prototypes(apart), ROW),
        Foreign(
            "cosines",
            "other layer",
            lambda: Through(
                lambda net, x: 4 * F.linear(F.normalize(net.body(x)), F.normalize(net.head.weight)),
                body=nn.Linear(4, 6),
                head=nn.Linear(6, 3, bias=False),
            ),
            ROW,
        ),
        Foreign(
            "gates",
            "other layer",
            lambda: Through(gated, skip=nn.Linear(4, 3), gate=nn.Linear(4, 3), body=nn.Linear(4, 3)),
            ROW,
        ),
        Foreign("outputs in a dict", "other layer", lambda: outputs_of(lambda out: {"logits": out}), ROW),
        Foreign("Dropout", "other layer", lambda: dense(nn.Dropout(0.5), nn.Tanh()), ROW),
        Foreign(
            "einsum",
            "other layer",
            lambda: Through(
                lambda net, x: net.head(torch.einsum("ni,oi,nj->noj", x, net.body.weight, x).flatten(1).tanh()),
                body=nn.Linear(4, 3, bias=False),
                head=nn.Linear(12, 3),
            ),
            ROW,
        ),
    ]


def layers() -> list[Foreign]:
    assert EXAMPLES == 6
    return [*recurrences(), *attentions(), *norms(), *activations(), *convolutions(), *others()]
