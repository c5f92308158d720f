"""What a forward pass does that a check must know of: how coarsely it rounds, and where it may hide a dependence."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from overparam.measure.problem.problem import Problem
from overparam.models.borrowed import NO_HOOKS
from overparam.models.reach import nodes

EMBEDDINGS = (F.embedding, F.embedding_bag)
SCALING = ("scale_grad_by_freq", "max_norm")
FALSE = ("CppNode", "FakeQuantize")  # nodes whose gradient need not be the derivative
TO_PYTHON = (Tensor.item, Tensor.tolist, Tensor.__float__, Tensor.numpy, Tensor.register_hook)


class Watched(TorchFunctionMode):
    """A forward pass, as it is seen from outside while this is active.

    `eps` is the largest machine ε among results that depend on the parameters. Normalizations and softmax are often
    computed in float32 in a model of another precision; a check that holds their rounding against the model in its own
    precision would blame it. `hides` says that a real number which depends on them came out without its gradient: then
    the gradient of the outputs may not be their derivative.

    >>> with Watched() as seen:
    ...     _ = torch.ones(1, dtype=torch.float64, requires_grad=True).float()
    >>> seen.eps == torch.finfo(torch.float32).eps, seen.hides
    (True, False)
    """

    def __init__(self) -> None:
        super().__init__()
        self.eps, self.hides = 0.0, False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        depends = _depends(args) or _depends(tuple(kwargs.values()))  # before, as `detach_` changes its argument
        found = func(*args, **kwargs)
        real = isinstance(found, Tensor) and found.is_floating_point()
        if isinstance(found, Tensor) and found.requires_grad:
            self.eps = max(self.eps, torch.finfo(found.dtype).eps)
            self.hides |= func in EMBEDDINGS and any(kwargs.get(name) for name in SCALING)
            self.hides |= depends and not torch.is_grad_enabled()
        elif func in TO_PYTHON or real:
            self.hides |= depends
        return found

    def __enter__(self) -> "Watched":
        super().__enter__()  # type: ignore[no-untyped-call]
        return self


def _depends(values: Sequence[Any]) -> bool:
    return any(
        value.requires_grad if isinstance(value, Tensor) else isinstance(value, tuple | list) and _depends(value)
        for value in values
    )


def watched(problem: Problem, leaves: dict[str, Tensor], x: Tensor) -> tuple[Tensor, float, bool]:
    """The outputs for x of parameters that want a gradient, the machine ε that they are good to, and whether their
    gradient must be looked at: something was hidden, or an autograd function of the caller's own has it.

    Raises:
        RuntimeError: the model saves activations by hooks: it would compute them again from its own weights.
    """
    with disable_saved_tensors_hooks(NO_HOOKS), Watched() as seen:
        outputs = problem.outputs(leaves, x)
    kinds = [type(node) for node in nodes([outputs.grad_fn])]
    own = any(hasattr(kind, "_forward_cls") or any(each in kind.__name__ for each in FALSE) for kind in kinds)
    return outputs, max(seen.eps, torch.finfo(outputs.dtype).eps), seen.hides or own
