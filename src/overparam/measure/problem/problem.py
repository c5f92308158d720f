"""A mean loss over fixed data, as a function of a model's parameters: what every measure in here starts from.

Policy. Parameters and buffers are copies: nothing that a forward pass does to them reaches the model. The data is read
once and kept, and a model that writes into its inputs gets copies, so that every product, probe and draw sees the same
examples. Gradients are on in every pass; one that needs none gets weights that ask for none, so that the model cannot
tell it from one that does. Losses are summed over examples and divided once by their number, so that a short last batch
weighs what it should.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from overparam.measure.problem.examples import Batch as Batch
from overparam.measure.problem.examples import Data as Data
from overparam.models.borrowed import in_words, tensor_of
from overparam.models.functional import Layout
from overparam.models.losses import LossName, correct_predictions, per_example
from overparam.models.slots import Slots
from overparam.models.traces import Attributes, forget

PerExample = Callable[[Tensor, Tensor], Tensor]
Loss = LossName | PerExample
CHUNK = 250  # examples per graph: conv activations of a small network still fit the cache
HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Problem:
    """`L(θ) = (1/N) Σ ℓ(f_θ(x_i), y_i)` for the chosen parameters θ, flat and in order; the others stay fixed.

    `slots` are the places of the model's tensors; `kept` are its attributes, if a pass keeps something there for the
    next. `eps` is the machine ε of the coarsest arithmetic between weights and outputs; `hides` says that `forward`
    cuts a dependence off from its gradient, or has an autograd function of its own.
    """

    model: nn.Module
    slots: Slots
    loss: Loss
    chunks: tuple[Batch, ...]
    layout: Layout
    theta: Tensor
    fixed: dict[str, Tensor] = field(repr=False)
    order: torch.memory_format = torch.contiguous_format
    eps: float = 0.0
    hides: bool = False
    kept: tuple[Attributes, ...] = ()

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
        """`f_θ(x)` with θ given by name.

        Raises:
            ValueError: the model fails on x, or returns no tensor.
        """
        x = x.detach().clone()  # the model may write into it
        try:
            with in_words(x), self.slots.filled({**self.fixed, **parts}):
                return tensor_of(self.model(x))
        finally:
            forget(self.kept)

    def values(self, x: Tensor, theta: Tensor | None = None) -> Tensor:
        """The outputs for x without a gradient, whatever the model differentiates for itself."""
        return self.outputs(self.parts(theta), x).detach()

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

    def risk(self, theta: Tensor | None = None) -> tuple[float, float]:
        """Mean loss and share of correct predictions at θ (NaN where targets are not classes); float64 sums.

        Raises:
            ValueError: the loss of the model itself, with no `theta` given, is not finite.
        """
        total, correct = 0.0, 0.0
        for x, y in self.chunks:
            outputs = self.values(x, theta)
            total += float(self.losses(outputs, y).detach().cpu().double().sum())
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


def any_loss(outputs: Tensor, _: Tensor) -> Tensor:
    """For measures of the outputs alone: the sum of each example's."""
    return outputs.flatten(1).sum(1) if outputs.ndim > 1 else outputs
