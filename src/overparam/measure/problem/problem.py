"""A mean loss over fixed data, as a function of a model's parameters: what every measure in here starts from.

Policy. The model is in eval mode while it is measured and gets every module's own mode back. Parameters and buffers
are copies: nothing that a forward pass does to them reaches the model. The data is read once and kept, so that every
product, probe and draw sees the same examples. Losses are summed over examples and divided once by their number, so
that a short last batch weighs what it should.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from overparam.measure.problem.examples import Batch as Batch
from overparam.measure.problem.examples import Data as Data
from overparam.models.functional import Layout
from overparam.models.functional import evaluating as evaluating
from overparam.models.losses import LossName, correct_predictions, per_example

PerExample = Callable[[Tensor, Tensor], Tensor]
Loss = LossName | PerExample
CHUNK = 250  # examples per graph: conv activations of a small network still fit the cache
HALF = (torch.float16, torch.bfloat16)
NO_HOOKS = "the model saves activations by hooks; turn gradient checkpointing and offloading off to measure it"


@dataclass(frozen=True)
class Problem:
    """`L(θ) = (1/N) Σ ℓ(f_θ(x_i), y_i)` for the chosen parameters θ, flat and in order; the others stay fixed."""

    model: nn.Module
    loss: Loss
    chunks: tuple[Batch, ...]
    layout: Layout
    theta: Tensor
    fixed: dict[str, Tensor] = field(repr=False)
    order: torch.memory_format = torch.contiguous_format

    @property
    def num_examples(self) -> int:
        return sum(len(y) for _, y in self.chunks)

    @property
    def num_parameters(self) -> int:
        return self.layout.size

    @property
    def device(self) -> torch.device:
        return self.theta.device

    def outputs(self, parts: dict[str, Tensor], x: Tensor) -> Tensor:
        """`f_θ(x)` with θ given by name; attention takes the kernel that has second derivatives.

        Raises:
            RuntimeError: the model saves activations by hooks: it would compute them again from its own weights, not θ.
        """
        with sdpa_kernel(SDPBackend.MATH), disable_saved_tensors_hooks(NO_HOOKS):
            found = functional_call(self.model, {**self.fixed, **parts}, (x,))
        if not isinstance(found, Tensor):
            raise TypeError(f"the model returns a {type(found).__name__}; wrap it so that it returns one tensor")
        return found

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Per-example losses (n,).

        Raises:
            ValueError: a loss of the caller's own does not give one value per example.
        """
        found = per_example(self.loss, outputs, y) if isinstance(self.loss, str) else self.loss(outputs, y)
        if found.shape != (len(y),):
            raise ValueError(
                f"the loss must return one value per example, shape ({len(y)},), not {tuple(found.shape)}; "
                'with PyTorch\'s losses pass reduction="none"'
            )
        return found

    def leaves(self, theta: Tensor | None = None) -> dict[str, Tensor]:
        """Parameters as fresh leaves of a graph."""
        return {name: part.detach().clone().requires_grad_() for name, part in self.parts(theta).items()}

    def parts(self, theta: Tensor | None = None) -> dict[str, Tensor]:
        """Parameters by name, for a pass without gradients; convolution weights in the order of memory."""
        split = self.layout.split(self.theta if theta is None else theta)
        return {name: ordered(part, self.order) for name, part in split.items()}

    @torch.no_grad()
    def risk(self, theta: Tensor | None = None) -> tuple[float, float]:
        """Mean loss and share of correct predictions at θ (NaN where targets are not classes); float64 sums.

        Raises:
            ValueError: the loss of the model itself, with no `theta` given, is not finite.
        """
        parts = self.parts(theta)
        total, correct = 0.0, 0.0
        for x, y in self.chunks:
            outputs = self.outputs(parts, x)
            total += float(self.losses(outputs, y).cpu().double().sum())
            classes = outputs.ndim == 2 and outputs.shape[1] > 1 and y.ndim == 1 and not y.is_floating_point()
            correct += float(correct_predictions(outputs, y)) if classes else float("nan")
        if theta is None and not math.isfinite(total):
            raise ValueError("the loss is not finite on some example of the data")
        return total / self.num_examples, correct / self.num_examples

    def gradient(self, theta: Tensor | None = None) -> Tensor:
        """`∇L(θ)`, shape (P,)."""
        leaves = self.leaves(theta)
        total = torch.zeros_like(self.theta)
        for x, y in self.chunks:
            loss = self.losses(self.outputs(leaves, x), y).sum()
            if loss.requires_grad:  # it may depend on none of the parameters
                parts = torch.autograd.grad(loss, tuple(leaves.values()), materialize_grads=True)
                total += self.layout.join(parts)
        return total / self.num_examples


def ordered(value: Tensor, order: torch.memory_format) -> Tensor:
    return value.contiguous(memory_format=order) if value.ndim == 4 else value
