"""A mean loss over fixed data, as a function of a model's parameters: what every measure in here starts from.

Policy. The model is in eval mode while it is measured and gets every module's own mode back. Parameters and buffers
are copies: nothing that a forward pass does to them reaches the model. The data is read once and kept, so that every
product, probe and draw sees the same examples. Losses are summed over examples and divided once by their number, so
that a short last batch weighs what it should.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from overparam.measure.losses import LossName, per_example
from overparam.models.functional import Layout, chosen_parameters

Batch = tuple[Tensor, Tensor]
Data = Batch | Iterable[Batch]
PerExample = Callable[[Tensor, Tensor], Tensor]
Loss = LossName | PerExample
CHUNK = 250  # examples per graph: conv activations of a small network still fit the cache


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

    def outputs(self, parts: dict[str, Tensor], x: Tensor) -> Tensor:
        """`f_θ(x)` with θ given by name; attention takes the kernel that has second derivatives."""
        with sdpa_kernel(SDPBackend.MATH):
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
        return {name: _ordered(part, self.order) for name, part in split.items()}

    @torch.no_grad()
    def risk(self, theta: Tensor | None = None) -> tuple[float, float]:
        """Mean loss and share of correct predictions at θ (NaN where targets are not classes); float64 sums."""
        parts = self.parts(theta)
        total, correct = 0.0, 0.0
        for x, y in self.chunks:
            outputs = self.outputs(parts, x)
            total += self.losses(outputs, y).double().sum().item()
            classes = outputs.ndim == 2 and y.ndim == 1 and not y.is_floating_point()
            correct += float((outputs.argmax(1) == y).sum()) if classes else float("nan")
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


@contextmanager
def opened(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    params: Sequence[str] | str | None = None,
    dtype: torch.dtype | None = None,
    chunk: int = CHUNK,
) -> Iterator[Problem]:
    """The problem of a model, with the model in eval mode meanwhile. `dtype` computes in another precision.

    Raises:
        ValueError: the data is empty or can be read only once, the loss is unknown or gives no per-example values, a
            weight is not finite, the model is random or mixes examples in eval mode, or `params` selects nothing.
    """
    if isinstance(loss, str) and loss not in ("cross_entropy", "mse"):
        raise ValueError(f'unknown loss "{loss}"; allowed: "cross_entropy", "mse", or a callable (outputs, targets)')
    own = dict(model.named_parameters())
    names = chosen_parameters(own, params)
    everything = {**own, **dict(model.named_buffers())}
    _refuse_non_finite(everything)
    copies = {name: _cast(value.detach(), dtype).clone() for name, value in everything.items()}
    theta = Layout.join(copies[name] for name in names)
    chunks = tuple(_chunks(data, theta, dtype, chunk))
    layout = Layout.of({name: own[name] for name in names})
    fixed = {name: value for name, value in copies.items() if name not in names}
    problem = Problem(model, loss, chunks, layout, theta, fixed)
    with evaluating(model):
        problem = _laid_out(problem)
        _refuse_random(problem)
        yield problem


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode, after which every module has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _chunks(data: Data, like: Tensor, dtype: torch.dtype | None, size: int) -> Iterator[Batch]:
    """The data in chunks of at most `size`, on the device of the parameters."""
    count = 0
    for x, y in _batches(data):
        if len(x) != len(y):
            raise ValueError(f"data: {len(x)} inputs but {len(y)} targets")
        x, y = (_cast(each.detach().to(like.device), dtype) for each in (x, y))
        for start in range(0, len(y), size):
            yield x[start : start + size], y[start : start + size]
        count += len(y)
    if count == 0:
        raise ValueError("data holds no example; give at least one")


def _batches(data: Data) -> Iterable[Batch]:
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(each, Tensor) for each in data):
        return (data,)  # type: ignore[return-value]
    if isinstance(data, Iterator) or not isinstance(data, Iterable):
        raise ValueError(
            f"data is a {type(data).__name__}; give a pair of tensors (x, y), or a list or loader of such pairs "
            "that can be read again"
        )
    return _checked(data)


def _checked(batches: Iterable[object]) -> Iterator[Batch]:
    for batch in batches:
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2 and all(isinstance(b, Tensor) for b in batch)):
            raise ValueError(f"data: a batch must be a pair of tensors (x, y), not {_described(batch)}")
        yield batch[0], batch[1]


def _described(batch: object) -> str:
    return f"a {type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, (tuple, list)) else "")


def _cast(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    return value.to(dtype) if dtype is not None and value.is_floating_point() else value


@torch.no_grad()
def _laid_out(problem: Problem) -> Problem:
    """Images and convolution weights in channels-last order, which is faster, unless the model can only be run in
    the usual one: `view` is bound to it.
    """
    order = torch.channels_last
    chunks = tuple((_ordered(x, order), y) for x, y in problem.chunks)
    faster = replace(problem, order=order, chunks=chunks)
    try:
        faster.outputs(faster.parts(), chunks[0][0][:2])
    except RuntimeError:
        return problem
    return faster


def _ordered(value: Tensor, order: torch.memory_format) -> Tensor:
    return value.contiguous(memory_format=order) if value.ndim == 4 else value


def _refuse_non_finite(tensors: dict[str, Tensor]) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            count = int((~value.isfinite()).sum())
            raise ValueError(f"{name} holds {count} values that are not finite; measure a model whose weights are")


@torch.no_grad()
def _refuse_random(problem: Problem) -> None:
    """Two passes over the first chunk must give the same finite losses."""
    x, y = problem.chunks[0]
    once, again = (problem.losses(problem.outputs(problem.parts(), x), y) for _ in range(2))
    if not bool(once.isfinite().all()):
        raise ValueError(f"the loss is not finite on {int((~once.isfinite()).sum())} of the first {len(y)} examples")
    if not torch.equal(once, again):
        raise ValueError(
            "two passes over the same examples give different losses in eval mode: the model draws random numbers "
            "(dropout written without `self.training`?); curvature of a random function is not defined"
        )
    _refuse_coupled(problem, once)


def _refuse_coupled(problem: Problem, losses: Tensor) -> None:
    """A quarter of the first chunk must have the losses that it has in the whole, but for rounding."""
    few = max(2, len(losses) // 4)
    x, y = (each[:few] for each in problem.chunks[0])
    apart = float((problem.losses(problem.outputs(problem.parts(), x), y) - losses[:few]).abs().max())
    if apart > float(torch.finfo(losses.dtype).eps) ** (1 / 3) * float(losses.abs().max()):
        raise ValueError(
            f"the loss of an example changes by up to {apart:.2g} with the others in its batch (batch norm without "
            "running statistics?): there is no mean over examples to measure; allowed: models that treat each example "
            "on its own in eval mode"
        )
