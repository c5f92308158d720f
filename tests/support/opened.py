"""A network that its mode matters to, and a check that opening a problem leaves it alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Batch


def examples(count: int = 30, inputs: int = 5, classes: int = 3, seed: int = 0) -> Batch:
    generator = torch_generator(seed, "test")
    x = torch.randn(count, inputs, generator=generator)
    return x, torch.randint(0, classes, (count,), generator=generator)


def network() -> nn.Sequential:
    """Batch norm and dropout in it: what its mode matters to."""
    generator = torch_generator(0, "test", "weights")
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3))
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(0.5 * torch.randn(value.shape, generator=generator))
    model(torch.randn(50, 5, generator=generator))  # running statistics that are not 0 and 1
    return model


def snapshot(model: nn.Module) -> dict[str, Any]:
    return {
        "state": {name: value.detach().clone() for name, value in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "trainable": [value.requires_grad for value in model.parameters()],
        "grads": [None if value.grad is None else value.grad.clone() for value in model.parameters()],
        "objects": [id(value) for value in (*model.parameters(), *model.buffers())],
    }


@contextmanager
def left_alone(model: nn.Module) -> Iterator[None]:
    """The model is bit for bit what it was, whatever happens inside."""
    before = snapshot(model)
    yield
    after = snapshot(model)
    assert before.keys() == after.keys()
    for name, value in before["state"].items():
        assert torch.equal(value.nan_to_num(7.5), after["state"][name].nan_to_num(7.5)), name
    for part in ("modes", "trainable", "grads", "objects"):
        assert before[part] == after[part], part


def refused(model: nn.Module, match: str, loss: Any = "cross_entropy", data: Any = None, **options: Any) -> None:
    """`opened` raises a ValueError that says `match`, and leaves the model alone."""
    with (
        left_alone(model),
        pytest.raises(ValueError, match=match),
        opened(model, loss, examples() if data is None else data, **options),
    ):
        pass
