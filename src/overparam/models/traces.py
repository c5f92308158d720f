"""What a module tree looked like, so that nothing that is done with it leaves a trace."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

REGISTRIES = frozenset(vars(nn.Module()))  # what every module has: parameters, buffers, parts, hooks
TENSORS = frozenset({"_parameters", "_buffers", "_modules", "training"})  # what is put into a module from outside


@dataclass(frozen=True)
class Attributes:
    """All attributes of one module, and what was in those that are dictionaries, lists or sets.

    Among them are its registries, hooks and mode, and whatever its forward pass keeps: old weight norm, spectral norm
    and pruning compute a weight anew into a plain attribute, recurrent layers a list of their weights, some attention
    layers biases, once for all.
    """

    module: nn.Module
    values: dict[str, Any]
    contents: dict[str, Any]

    @classmethod
    def of(cls, module: nn.Module) -> "Attributes":
        values = dict(vars(module))
        return cls(module, values, {k: v.copy() for k, v in values.items() if isinstance(v, dict | list | set)})

    def put_back(self, but: frozenset[str] = frozenset()) -> bool:
        """All but some of them; whether anything had changed."""
        now, changed = vars(self.module), False
        for name in now.keys() - self.values.keys():
            del now[name]
            changed = True
        for name in self.values.keys() - but:
            value = self.values[name]
            if now.get(name, self) is not value:
                now[name] = value
                changed = True
            if name in self.contents and (name in REGISTRIES or _hold_tensors(value, self.contents[name])):
                changed |= _refill(value, self.contents[name])
        return changed


def _hold_tensors(*containers: Any) -> bool:
    """A list of notes that a model takes of its passes is left to it."""
    return any(isinstance(each, Tensor | nn.Module) for container in containers for each in _items(container))


def _refill(container: Any, before: Any) -> bool:
    """Whether it had to be. By identity: what lies in it may be tensors, which do not compare as a whole."""
    if len(container) == len(before) and all(a is b for a, b in zip(_items(container), _items(before), strict=True)):
        return False
    container.clear()
    (container.extend if isinstance(before, list) else container.update)(before)
    return True


def _items(container: Any) -> Iterator[Any]:
    yield from chain(*container.items()) if isinstance(container, dict) else container


def attributes_of(model: nn.Module) -> tuple[Attributes, ...]:
    return tuple(Attributes.of(module) for module in model.modules())


def forget(attributes: Sequence[Attributes]) -> bool:
    """Put back what a forward pass keeps for the next, so that each is a function of its tensors; whether one did."""
    return any([each.put_back(but=TENSORS) for each in attributes])


@dataclass(frozen=True)
class Traces:
    """Modes and attributes of all modules, and values of tensors that a module's own `train` or `eval` may write."""

    attributes: tuple[Attributes, ...]
    tensors: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(cls, model: nn.Module) -> "Traces":
        own = [module for module in model.modules() if _has_own_modes(module)]
        tensors = {id(t): t for module in own for t in (*module.parameters(), *module.buffers())}
        saved = tuple((tensor, tensor.detach().clone()) for tensor in tensors.values())
        return cls(attributes_of(model), saved)

    def put_back(self) -> None:
        """First by each module's own `train`, which may undo what is not in the module; then object by object."""
        try:
            for each in self.attributes:
                if each.module.training != (mode := each.values["training"]):
                    each.module.train(mode)
        finally:
            for each in self.attributes:
                each.put_back()
            for tensor, value in self.tensors:
                with torch.no_grad():
                    tensor.data.copy_(value)  # merging and unmerging weights rounds


def _has_own_modes(module: nn.Module) -> bool:
    return type(module).train is not nn.Module.train or type(module).eval is not nn.Module.eval
