"""The lazy-training scale: outputs that start at zero and are multiplied by α."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from overparam.models.taylor.network import INITIAL, Anchored, Linearized, attach


class Lazy(Anchored):
    """`α (f_θ(x) − f_θ0(x))`, exactly zero at the initialization θ0.

    Both networks are in the mode of the module, each with its own batch-norm statistics, so that they agree at θ = θ0
    in either mode, but for dropout, which each draws for itself. With the training loss divided by α², weights move by
    O(1/α) while outputs move by O(1). What the difference loses to rounding is multiplied by α: in float32 about
    10⁻⁷ α of the size of f.

    Source: Chizat, Oyallon & Bach (2019), section 1.2.

    >>> network = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.ones_(network.weight)
    >>> model = Lazy(network, 8.0)
    >>> with torch.no_grad():
    ...     _ = model.weight.add_(0.5)
    >>> model(torch.tensor([[3.0]])).detach()
    tensor([[12.]])
    """

    def __init__(self, network: nn.Module, scale: float) -> None:
        super().__init__(network)
        self.scale = scale
        for name, value in network.named_buffers():
            attach(self, name, value.detach().clone(), "buffer")

    def forward(self, x: Tensor) -> Tensor:
        # The same modules run with two sets of tensors; statistics move in the set that is given.
        own = {name: value for name, value in self.named_buffers() if not name.startswith(f"{INITIAL}.")}
        parts, start = self.parts(), self.start()
        moving: Tensor = functional_call(self.initial, {**own, **_own_memory(parts)}, (x,))
        with torch.no_grad():
            alike = {name: _laid_out_like(value, parts[name]) for name, value in start.items()}
            still: Tensor = functional_call(self.initial, _own_memory(alike), (x,))
        return self.scale * (moving - still)


def _own_memory(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies: kernels round by where in memory a tensor begins, and θ may be slices of one long vector."""
    return {name: value.clone() for name, value in parts.items()}


def _laid_out_like(value: Tensor, other: Tensor) -> Tensor:
    """In the same order of memory, by which kernels round too: they must leave no difference where there is none."""
    if value.stride() == other.stride():
        return value
    return torch.empty_strided(other.shape, other.stride(), dtype=value.dtype, device=value.device).copy_(value)


class LazyLinearized(Linearized):
    """`α J_θ0(x)(θ − θ0)`: what `Lazy` becomes for large α."""

    def __init__(self, network: nn.Module, scale: float) -> None:
        super().__init__(network)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        _, slope = self.expanded(x)
        return self.scale * slope


def as_trained(network: nn.Module, linearize: bool, lazy_scale: float | None) -> nn.Module:
    """The function that a run trains: the network itself, or a form of it around its initialization."""
    if lazy_scale is None:
        return Linearized(network) if linearize else network
    return (LazyLinearized if linearize else Lazy)(network, lazy_scale)
