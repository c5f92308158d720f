"""Which parameters a gradient reaches, and what becomes of the others."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from torch import Tensor

Unused = Literal["refuse", "hold"]
NAMED = 5  # parameters that a sentence names


def nodes(starts: Iterable[Any]) -> Iterator[Any]:
    """All nodes of autograd's graph behind some of them, each once."""
    waiting, seen = [start for start in starts if start is not None], set()
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += [child for child, _ in node.next_functions if child is not None]
            yield node


def reached(outputs: Tensor, leaves: Mapping[str, Tensor]) -> set[str]:
    """Names of the leaves that a gradient of the outputs reaches.

    >>> import torch
    >>> w, b = (torch.ones(1, requires_grad=True) for _ in range(2))
    >>> reached(2.0 * w + b.detach(), {"w": w, "b": b})
    {'w'}
    """
    names = {id(leaf): name for name, leaf in leaves.items()}
    found = {id(getattr(node, "variable", None)) for node in nodes([outputs.grad_fn])} | {id(outputs)}
    return {name for key, name in names.items() if key in found}


def refuse_other_references(outputs: Tensor, own: Mapping[str, Tensor]) -> None:
    """A model may hold a parameter in a list beside the place where it is registered, and use it from there.

    Raises:
        ValueError: the outputs depend on one of the model's own tensors, in whose place another one was put.
    """
    found = reached(outputs, own)
    if found:
        raise ValueError(
            f"`forward` uses {sorted(found)[0]} by another reference than the place where it is registered (a list, an "
            "attribute), where no other weights can be put; use the registered one, or an nn.ParameterList"
        )


def refuse_unknown_rule(unused: str) -> None:
    if unused not in get_args(Unused):
        raise ValueError(f'unused = "{unused}"; allowed: "refuse", or "hold" to keep unused parameters where they are')


def used(outputs: Iterable[Tensor], leaves: Mapping[str, Tensor], unused: Unused) -> tuple[str, ...]:
    """The names of the leaves that some of the outputs depend on, in order; passes are made until all are found.

    Raises:
        ValueError: there are others and they are to be refused, or there are no others.
    """
    missing = set(leaves)
    for each in outputs:
        missing -= reached(each, leaves)
        if not missing:
            return tuple(leaves)
    found = tuple(name for name in leaves if name not in missing)
    if not found:
        raise ValueError(
            f"the outputs depend on no trainable parameter, no output depends on {_listed(list(leaves))}: does "
            "`forward` run under torch.no_grad(), detach what it returns or leave them out?"
        )
    if unused == "refuse":
        lost = [name for name in leaves if name in missing]
        raise ValueError(
            f"in eval mode no output depends on {_listed(lost)}, as far as gradients tell: `forward` leaves them out, "
            "or detaches what they give (no_grad, detach, merged adapters, a cache). Leave them out by "
            'requires_grad_(False) or params=[…], or hold them where they are with unused="hold"'
        )
    return found


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
