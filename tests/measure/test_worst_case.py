"""The worst case: the unit of the loss, where it is defined, and what more work may not do."""

import pytest
import torch
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.sharpness.worst_case import worst_case_sharpness
from tests.support.networks import rows, smooth_mlp

F64 = torch.float64


def inputs(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.randn(count, size, generator=torch_generator(seed, "test"), dtype=F64)


def linear() -> nn.Module:
    model = nn.Linear(2, 1, bias=False).double()
    model.weight.data.copy_(torch.tensor([[1.0, 2.0]], dtype=F64))
    return model


@pytest.mark.parametrize("shift", [-1.0, -2.0])
def test_keskar_needs_a_loss_above_minus_one(shift: float) -> None:
    """The value is divided by 1 + L."""
    model = linear()
    x, y = inputs(4, 2), torch.zeros(4, 1, dtype=F64)
    with pytest.raises(ValueError, match="allowed: L > −1"):
        worst_case_sharpness(model, lambda f, y: shift + 0.0 * f[:, 0], (x, y), radius=0.1, norm="keskar")


@pytest.mark.parametrize("unit", [1e-12, 1e9])
def test_the_worst_case_has_the_unit_of_the_loss(unit: float) -> None:
    """A small number added to a norm would stop the ascent of a small loss."""
    model, pair = linear(), (inputs(6, 2), inputs(6, 1, seed=1))
    plain = worst_case_sharpness(model, "mse", pair, radius=0.3)
    found = worst_case_sharpness(model, lambda f, y: unit * 0.5 * (f - y).square().sum(1), pair, radius=0.3)
    assert found.value == pytest.approx(unit * plain.value, rel=1e-9)


def test_more_restarts_and_more_steps_never_find_less() -> None:
    model, pair = smooth_mlp(), rows(20)
    found = [
        worst_case_sharpness(model, "cross_entropy", pair, radius=1.0, restarts=restarts, steps=steps).value
        for restarts, steps in ((1, 5), (2, 5), (4, 5), (4, 10))
    ]
    assert found == sorted(found)
