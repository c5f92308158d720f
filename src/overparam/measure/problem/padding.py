"""Rows of embeddings that PyTorch never trains."""

from torch import Tensor, nn

from overparam.measure.problem.problem import Problem

KINDS = (nn.Embedding, nn.EmbeddingBag)


def padding_rows(problem: Problem) -> dict[str, int]:
    """The row at `padding_idx` of each parameter that is an embedding's weight.

    Outputs depend on it, but no gradient reaches it through the lookup.
    """
    names = {id(place.tensor): place.name for place in problem.slots.places}
    modules = [module for module in problem.model.modules() if isinstance(module, KINDS)]
    return {names[id(m.weight)]: m.padding_idx for m in modules if m.padding_idx is not None and id(m.weight) in names}


def without_padding(parts: dict[str, Tensor], rows: dict[str, int]) -> dict[str, Tensor]:
    """Directions by name, zero in those rows."""
    found = {name: part.clone() if name in rows else part for name, part in parts.items()}
    for name in rows.keys() & found.keys():
        found[name][rows[name]] = 0.0
    return found
