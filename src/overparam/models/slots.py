"""Where a module tree holds its tensors, and other tensors in their places for a while."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Place:
    """A key of a module's own registry of parameters or buffers, the tensor there, and the first name it has."""

    registry: dict[str, Any]
    key: str
    tensor: Tensor
    name: str


@dataclass(frozen=True)
class Slots:
    """Every place of a module tree that holds a registered tensor, each once.

    A module may be registered under several names, and a tensor in several modules. All places of one tensor get the
    same other tensor, and each place gets the very object back that was there: `torch.func.functional_call` goes by
    names, visits a module with two names twice, and leaves its own tensors in it.
    """

    places: tuple[Place, ...]

    @classmethod
    def of(cls, model: nn.Module) -> "Slots":
        """
        >>> layer = nn.Linear(1, 1)
        >>> [place.name for place in Slots.of(nn.Sequential(layer, layer)).places]
        ['0.weight', '0.bias']
        """
        names = {id(value): name for name, value in (*model.named_buffers(), *model.named_parameters())}
        found: list[Place] = []
        registries = [held for module in model.modules() for held in (module._parameters, module._buffers)]
        for held in registries:
            kept = {key: value for key, value in held.items() if value is not None}
            found += [Place(held, key, value, names[id(value)]) for key, value in kept.items()]
        return cls(tuple(found))

    @contextmanager
    def filled(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Other tensors by name; afterwards those of before, whatever happened or a forward pass assigned."""
        try:
            for place in self.places:
                if place.name in tensors:
                    place.registry[place.key] = tensors[place.name]
            yield
        finally:
            for place in self.places:
                place.registry[place.key] = place.tensor
