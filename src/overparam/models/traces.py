"""What a module tree looked like, so that nothing that is done with it leaves a trace."""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

REGISTRIES = frozenset(vars(nn.Module()))  # what every module has: parameters, buffers, parts, hooks, its mode


@dataclass(frozen=True)
class Attributes:
    """The attributes of one module, and what was in those that are dictionaries, lists or sets.

    Put back are a module's own registries, its hooks and its mode, and whatever holds tensors: old weight norm,
    spectral norm and pruning keep a weight as a plain attribute that every forward pass computes anew, recurrent layers
    a list of their weights. A count of passes or another note that a model keeps for itself is left to it.
    """

    module: nn.Module
    values: dict[str, Any]
    contents: dict[str, Any]

    @classmethod
    def of(cls, module: nn.Module) -> "Attributes":
        values = dict(vars(module))
        return cls(module, values, {k: v.copy() for k, v in values.items() if isinstance(v, dict | list | set)})

    def put_back(self) -> None:
        now = vars(self.module)
        for name in [name for name, value in now.items() if name not in self.values and _holds_tensors(value)]:
            del now[name]
        for name, value in self.values.items():
            before = self.contents.get(name, value)
            if name in REGISTRIES or _holds_tensors(before) or _holds_tensors(now.get(name)):
                if now.get(name, self) is not value:
                    now[name] = value
                if name in self.contents:
                    _refill(value, before)


def _holds_tensors(value: Any) -> bool:
    each = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else (value,)
    return any(isinstance(one, Tensor | nn.Module | weakref.ref) for one in each)


def _refill(container: Any, before: Any) -> None:
    """By identity: what lies in it may be tensors, which do not compare as a whole."""
    if len(container) == len(before) and all(a is b for a, b in zip(_items(container), _items(before), strict=True)):
        return
    container.clear()
    (container.extend if isinstance(before, list) else container.update)(before)


def _items(container: Any) -> Iterator[Any]:
    yield from chain(*container.items()) if isinstance(container, dict) else container


@dataclass(frozen=True)
class Traces:
    """Modes and attributes of all modules, and values of tensors that a module's own `train` or `eval` may write."""

    attributes: tuple[Attributes, ...]
    tensors: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(cls, model: nn.Module) -> "Traces":
        modules = list(model.modules())
        own = [module for module in modules if _has_own_modes(module)]
        tensors = {id(t): t for module in own for t in (*module.parameters(), *module.buffers())}
        saved = tuple((tensor, tensor.detach().clone()) for tensor in tensors.values())
        return cls(tuple(Attributes.of(module) for module in modules), saved)

    def put_back(self) -> None:
        """First by each module's own `train`, which may undo what is not in the module; then object by object."""
        for each in self.attributes:
            if each.module.training != (mode := each.values["training"]):
                each.module.train(mode)
        for each in self.attributes:
            each.put_back()
        for tensor, value in self.tensors:
            with torch.no_grad():
                tensor.data.copy_(value)  # merging and unmerging weights rounds


def _has_own_modes(module: nn.Module) -> bool:
    return type(module).train is not nn.Module.train or type(module).eval is not nn.Module.eval
