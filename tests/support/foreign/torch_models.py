"""Networks of torch.nn whose modules share, hide, write or cast: what a measure must see through or refuse."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from tests.support.foreign.network import Foreign, signals, tokens
from tests.support.foreign.torch_layers import LOSES_DIGITS
from tests.support.foreign.torch_parts import Through, dense, headed
from tests.support.networks import Repeated, TwoNames

ROW, IMAGE = signals(4), signals(2, 6, 6)


class Tied(nn.Module):
    """Input and output embeddings are one parameter, as in language models."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(3, 5), nn.Linear(5, 5), nn.Linear(5, 3, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.body(self.embed(x).mean(1))))
        return out


class TiedAcross(nn.Module):
    """A decoder that has the encoder's weight, and a parameter at the top that a part has too."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode, self.head = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 3)
        self.decode.weight = self.encode.weight
        self.scale = self.head.bias

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.encode(x)) + torch.sigmoid(self.decode(x))) * self.scale
        return out


class WritesIntoInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = dense(nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        x -= 1
        out: Tensor = self.body(x)
        return out


class Cast(nn.Module):
    """Its forward pass ends in float32, whatever it is in."""

    def __init__(self, inside: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.inside = nn.Linear(4, 6), nn.Linear(6, 3), inside

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(self, x)


def float_outputs(net: Any, x: Tensor) -> Tensor:
    out: Tensor = net.last(torch.tanh(net.first(x))).float()
    return out


def float_softmax(net: Any, x: Tensor) -> Tensor:
    out: Tensor = net.last(F.softmax(net.first(x), 1, dtype=torch.float32).to(x.dtype))
    return out


def float_norm(net: Any, x: Tensor) -> Tensor:
    hidden = net.first(x)
    wide = hidden.float()
    out: Tensor = net.last((wide * torch.rsqrt(wide.square().mean(1, keepdim=True) + 1e-6)).to(hidden.dtype))
    return out


def pruned() -> nn.Module:
    model = dense(nn.Tanh())
    prune.l1_unstructured(model[0], "weight", amount=0.4)  # type: ignore[index, no-untyped-call]
    prune.random_unstructured(model[2], "weight", amount=0.3)  # type: ignore[index, no-untyped-call]
    return model


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch says that there is a newer one
        return dense_with(nn.utils.weight_norm)


def dense_with(wrap: Callable[..., nn.Module]) -> nn.Module:
    return nn.Sequential(wrap(nn.Linear(4, 6)), nn.Tanh(), nn.Linear(6, 3))


def lora() -> nn.Module:
    return Through(
        lambda net, x: net.base(x) + net.up(net.down(x)),
        base=nn.Linear(4, 3).requires_grad_(False),
        down=nn.Linear(4, 2, bias=False),
        up=nn.Linear(2, 3, bias=False),
    )


def detached(net: Any, x: Tensor) -> Tensor:
    out: Tensor = net.head(torch.tanh(net.body(x)).detach())
    return out


def with_spare() -> nn.Module:
    return Through(lambda net, x: net.body(x), body=dense(nn.Tanh()), spare=nn.Linear(2, 2))


def checked_by_gradient(net: Any, x: Tensor) -> Tensor:
    """A force: the derivative of an energy in the inputs."""
    moved = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        energy = torch.tanh(net.body(moved)).square().sum()
        (force,) = torch.autograd.grad(energy, moved, create_graph=True)
    out: Tensor = net.head(force)
    return out


def noisy(net: Any, x: Tensor) -> Tensor:
    out: Tensor = net.body(x + 0.1 * torch.randn_like(x))
    return out


def coupled(net: Any, x: Tensor) -> Tensor:
    out: Tensor = net.body(x - x.mean(0))
    return out


def sharing() -> list[Foreign]:
    return [
        Foreign("a module under two names", "sharing", TwoNames, ROW),
        Foreign("ModuleList of one layer", "sharing", Repeated, ROW),
        Foreign("tied embeddings", "sharing", Tied, tokens(3)),
        Foreign("tied parameters", "sharing", TiedAcross, ROW),
        Foreign(
            "frozen body",
            "sharing",
            lambda: nn.Sequential(nn.Linear(4, 6).requires_grad_(False), nn.Tanh(), nn.Linear(6, 3)),
            ROW,
        ),
        Foreign("LoRA on a frozen layer", "sharing", lora, ROW),
    ]


def rewritten() -> list[Foreign]:
    """Weights that something computes from others."""
    spectral = torch.nn.utils.spectral_norm
    return [
        Foreign("prune", "rewritten weights", pruned, ROW),
        Foreign("weight_norm, old", "rewritten weights", old_weight_norm, ROW),
        Foreign("weight_norm", "rewritten weights", lambda: dense_with(parametrizations.weight_norm), ROW),
        Foreign("spectral_norm, old", "rewritten weights", lambda: dense_with(spectral), ROW),
        Foreign("spectral_norm", "rewritten weights", lambda: dense_with(parametrizations.spectral_norm), ROW),
        Foreign("orthogonal", "rewritten weights", lambda: dense_with(parametrizations.orthogonal), ROW),
        Foreign(
            "weight_norm of a convolution",
            "rewritten weights",
            lambda: headed(parametrizations.weight_norm(nn.Conv2d(2, 3, 3)), nn.Tanh(), features=48),
            IMAGE,
        ),
    ]


def writing() -> list[Foreign]:
    return [
        Foreign("x -= 1", "writes", WritesIntoInput, ROW),
        Foreign("ReLU in place first", "writes", lambda: nn.Sequential(nn.ReLU(inplace=True), dense(nn.Tanh())), ROW),
        Foreign(
            "ReLU in place first, images",
            "writes",
            lambda: nn.Sequential(nn.ReLU(inplace=True), headed(nn.Conv2d(2, 3, 3), nn.Tanh(), features=48)),
            IMAGE,
        ),
    ]


def casting() -> list[Foreign]:
    casts = {"outputs in float32": float_outputs, "softmax in float32": float_softmax, "norm in float32": float_norm}
    return [
        Foreign("outputs in float32, float32", "casts", lambda: Cast(float_outputs), ROW, single=True),
        *(Foreign(name, "casts", partial(Cast, way), ROW, tolerance=LOSES_DIGITS) for name, way in casts.items()),
        Foreign("MLP, float32", "casts", lambda: dense(nn.GELU()), ROW, single=True),
        Foreign(
            "CNN, float32",
            "casts",
            lambda: headed(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), features=64),
            IMAGE,
            single=True,
        ),
    ]


UNUSED = {"every": "no output depends on .*spare", "barrier": None}
HIDDEN = {"every": "no output depends on .*body", "flatness": None, "barrier": None}  # of the head; by values alone
RANDOM = {"every": "draws random numbers|from pass to pass"}
BY_BATCH: dict[str, str | None] = {"every": "change by .* with the others in its batch"}


def refused() -> list[Foreign]:
    return [
        Foreign("a spare layer", "refused", with_spare, ROW, UNUSED, held=False),
        Foreign(
            "detached body",
            "refused",
            lambda: Through(detached, body=nn.Linear(4, 5), head=nn.Linear(5, 3)),
            ROW,
            HIDDEN,
            held=False,
        ),
        Foreign("random in eval mode", "refused", lambda: Through(noisy, body=dense(nn.Tanh())), ROW, RANDOM),
        Foreign("mixes examples", "refused", lambda: Through(coupled, body=dense(nn.Tanh())), ROW, BY_BATCH),
        Foreign(
            "a force",
            "derivatives as outputs",
            lambda: Through(checked_by_gradient, body=nn.Linear(4, 5), head=nn.Linear(4, 3)),
            ROW,
        ),
    ]


def models() -> list[Foreign]:
    return [*sharing(), *rewritten(), *writing(), *casting(), *refused()]
