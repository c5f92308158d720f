"""What an autograd graph holds: memory, and functions that can be differentiated only once."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor
from torch.autograd.function import once_differentiable

from overparam.models.reach import nodes

_ONCE = once_differentiable(lambda ctx: None).__code__


def graph_bytes(roots: Iterable[Tensor]) -> int:
    """Bytes of all tensors that the graph behind `roots` has saved, each storage once.

    >>> import torch
    >>> x = torch.ones(1000, requires_grad=True)
    >>> graph_bytes([x.exp()])  # exp saves its result: 1000 numbers of 4 bytes
    4000
    """
    sizes: dict[int, int] = {}
    for node in nodes(root.grad_fn for root in roots):
        for tensor in _saved(node):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def refuse_once_differentiable(root: Tensor) -> None:
    """PyTorch drops the second derivative of such a function without a word where its cotangent needs no gradient.

    Raises:
        RuntimeError: the graph behind `root` has a function whose backward is marked `once_differentiable`.
    """
    for node in nodes([root.grad_fn]):
        backward = getattr(getattr(type(node), "_forward_cls", None), "backward", None)
        if getattr(backward, "__code__", None) is _ONCE:
            raise RuntimeError(f"the derivative for {type(node).__name__} can be taken only once: once_differentiable")


def _saved(node: Any) -> Iterator[Tensor]:
    """Python functions list what they saved; PyTorch's own nodes have an attribute for each tensor."""
    found = list(getattr(node, "saved_tensors", ()) or ())
    for name in dir(node):
        if name.startswith("_saved_"):
            value = getattr(node, name)
            found += value if isinstance(value, (tuple, list)) else [value]
    yield from (tensor for tensor in found if isinstance(tensor, Tensor))
