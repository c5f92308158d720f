"""In which precision a model really computes, whatever the precision of its weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from overparam.measure.problem.problem import Problem

NO_HOOKS = "the model saves activations by hooks; turn gradient checkpointing and offloading off to measure it"


class Coarsest(TorchFunctionMode):
    """While it is active, `eps` is the largest machine ε among results that depend on the parameters.

    Normalizations and softmax are often computed in float32 in a model of another precision; a check that holds their
    rounding against the model in its own precision would blame it.

    >>> with Coarsest() as seen:
    ...     _ = torch.ones(1, dtype=torch.float64, requires_grad=True).float()
    >>> seen.eps == torch.finfo(torch.float32).eps
    True
    """

    def __init__(self) -> None:
        super().__init__()
        self.eps = 0.0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and found.requires_grad:
            self.eps = max(self.eps, torch.finfo(found.dtype).eps)
        return found

    def __enter__(self) -> "Coarsest":
        super().__enter__()  # type: ignore[no-untyped-call]
        return self


def coarsest(problem: Problem, leaves: dict[str, Tensor], x: Tensor) -> tuple[Tensor, float]:
    """The outputs for x, of parameters that want a gradient, and the machine ε that they are good to.

    Raises:
        RuntimeError: the model saves activations by hooks: it would compute them again from its own weights.
    """
    with disable_saved_tensors_hooks(NO_HOOKS), Coarsest() as seen:
        outputs = problem.outputs(leaves, x)
    return outputs, max(seen.eps, torch.finfo(outputs.dtype).eps)
