"""A pruned network as a function of its kept weights alone."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils import parametrize


class Kept(nn.Module):
    """w ↦ mask ⊙ w: derivatives in pruned weights are exactly zero."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.get_buffer("kept")


def thin(model: nn.Module, mask: Mapping[str, Tensor]) -> nn.Module:
    """The same module, whose outputs no longer depend on pruned weights; an empty mask leaves it as it is.

    Its Hessian is `M H M`: that of the thin network, and zeros. Without this the curvature along weights that are not
    there would count. Parameters get other names.

    >>> import torch
    >>> layer = nn.Sequential(nn.Linear(2, 1, bias=False))
    >>> _ = thin(layer, {"0.weight": torch.tensor([[True, False]])})
    >>> layer(torch.ones(1, 2)).sum().backward()
    >>> [p.grad.tolist() for p in layer.parameters()]
    [[[1.0, 0.0]]]
    """
    for name, kept in mask.items():
        path, _, tensor = name.rpartition(".")
        module = model.get_submodule(path)
        place = kept.to(module.get_parameter(tensor).device)
        parametrize.register_parametrization(module, tensor, Kept(place.to(module.get_parameter(tensor).dtype)))
    return model
