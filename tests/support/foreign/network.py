"""What a foreign network is here: how it is made, what it is measured on, and what every measure must say of it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from overparam.foundations.torch_generators import torch_generator

F64 = torch.float64
EXAMPLES, CLASSES = 6, 3
Make = Callable[[], nn.Module]


@dataclass(frozen=True, eq=False)
class Foreign:
    """A network with three classes, its inputs (6, …), and what is expected: right values, or a sentence.

    `refused` maps a measure, or "every", to the expression that its refusal must match, or to `None` where it has a
    value. `single` is a network in float32. `tolerance` is that of values, relative to the norm of what they belong to.
    `held` says that parameters on which no output depends are frozen beforehand. `library` is where it is from.
    `twin` makes it for references, where it has kernels of its own that float64 has not.
    """

    name: str
    family: str
    make: Make
    inputs: Callable[[], Tensor]
    refused: Mapping[str, str | None] = field(default_factory=dict)
    single: bool = False
    tolerance: float = 1e-5
    held: bool = True
    library: str = "torch"
    twin: Make | None = None

    def born(self, *, twin: bool = False) -> nn.Module:
        """The network, or its twin for references, with the same weights at every call; it has never been run."""
        with born_alike(self.name):
            model = self.twin() if twin and self.twin is not None else self.make()
        filled(model.float() if self.single else model.double(), self.name)
        if self.held:
            for name in unused(self):
                model.get_parameter(name).requires_grad_(False)
        return model

    def batch(self) -> tuple[Tensor, Tensor]:
        """The same examples at every call, of the network's precision."""
        x = self.inputs()
        if x.is_floating_point():
            x = x.float() if self.single else x.double()
        return x, torch.arange(len(x)) % CLASSES

    def expected_refusal(self, measure: str) -> str | None:
        return self.refused.get(measure, self.refused.get("every"))


@contextmanager
def born_alike(name: str) -> Iterator[None]:
    """Initial weights from a stream of their own; the global generator is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch_generator(0, "foreign", name).get_state())
        yield


@torch.no_grad()
def filled(model: nn.Module, name: str) -> nn.Module:
    """Weights, biases and running statistics at no special value: those of small-scale initializations hide faults."""
    generator = torch_generator(0, "filled", name)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=F64).to(like)

    for value in model.parameters():
        value.add_(noise(value) * (0.3 if value.ndim < 2 else 0.7 * value[0].numel() ** -0.5))
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.add_(0.3 * noise(module.running_mean))
            module.running_var.mul_(torch.exp(0.3 * noise(module.running_var)))
    return model


@cache
def unused(network: Foreign) -> tuple[str, ...]:
    """Names of what no output depends on, as PyTorch itself says it of a network that is run for this alone."""
    model = replace(network, held=False).born()
    with in_eval(model), plain_kernels():
        outputs = tensor_of(model(network.batch()[0]))
    leaves = {name: p for name, p in model.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(outputs.sum(), list(leaves.values()), allow_unused=True)
    return tuple(name for name, grad in zip(leaves, grads, strict=True) if grad is None)


def tensor_of(outputs: Any) -> Tensor:
    if isinstance(outputs, Tensor):
        return outputs
    found: Tensor = outputs["logits"] if isinstance(outputs, dict) else outputs.logits
    return found


@contextmanager
def in_eval(model: nn.Module) -> Iterator[None]:
    """Every module's own mode comes back; what a module keeps between passes in eval mode is computed anew."""
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Attention by its formula, in passes with and without gradients."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def signals(*shape: int) -> Callable[[], Tensor]:
    """Gaussian inputs (6, *shape)."""
    return lambda: torch.randn(EXAMPLES, *shape, generator=torch_generator(0, "signals"), dtype=F64)


def tokens(vocabulary: int = 24, length: int = 6, *, first: int = 0) -> Callable[[], Tensor]:
    """Whole numbers (6, length) from `first` to `vocabulary` − 1."""
    generator = torch_generator(0, "tokens")
    found = torch.randint(first, vocabulary, (EXAMPLES, length), generator=generator)
    return lambda: found.clone()


def padded_tokens(vocabulary: int = 24, length: int = 6) -> Callable[[], Tensor]:
    """Sequences of several lengths: 0 behind their end, in the first examples too."""
    found = tokens(vocabulary, length, first=3)()
    for i in range(EXAMPLES):
        found[i, length - i % 3 :] = 0
    return lambda: found.clone()
