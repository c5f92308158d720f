"""A model as a function of its parameters: flat vectors ↔ named parameters."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Where each named parameter lies in one flat vector of length `size`.

    >>> layout = Layout.of({"w": torch.zeros(2, 3), "b": torch.ones(2)})
    >>> layout.size, layout.split(torch.arange(8.0))["b"].tolist()
    (8, [6.0, 7.0])
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @classmethod
    def of(cls, parameters: Mapping[str, Tensor]) -> "Layout":
        return cls(tuple(parameters), tuple(p.shape for p in parameters.values()))

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(shape.numel() for shape in self.shapes)

    @property
    def size(self) -> int:
        return sum(self.sizes)

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Views of a flat vector (P,), or of several as rows (K, P), in the shapes of the parameters."""
        lead = vector.shape[:-1]
        parts = torch.split(vector, list(self.sizes), dim=-1)
        return {n: p.reshape(*lead, *s) for n, p, s in zip(self.names, parts, self.shapes, strict=True)}

    @staticmethod
    def join(parts: Iterable[Tensor]) -> Tensor:
        """The flat vector of parameters given in order."""
        return torch.cat([part.reshape(-1) for part in parts])


def chosen_parameters(parameters: Mapping[str, Tensor], params: Sequence[str] | str | None) -> tuple[str, ...]:
    """Names that `params` selects: `None` means all that require a gradient; else names, or prefixes such as "body.0".

    Raises:
        ValueError: a name selects nothing, or nothing at all is selected.
    """
    if params is None:
        chosen = [name for name, value in parameters.items() if value.requires_grad]
        if not chosen:
            raise ValueError("no parameter of the model requires a gradient; name the ones to measure with params=[…]")
        return tuple(chosen)
    wanted = [params] if isinstance(params, str) else list(params)
    for word in wanted:
        if not any(_under(name, word) for name in parameters):
            raise ValueError(
                f'params: no parameter is named or lies under "{word}"; there are: {", ".join(parameters)}'
            )
    chosen = [name for name in parameters if any(_under(name, word) for word in wanted)]
    if not chosen:
        raise ValueError("params selects no parameter; name at least one, or pass None for all trainable ones")
    return tuple(chosen)


def _under(name: str, word: str) -> bool:
    return name == word or name.startswith(f"{word}.")
