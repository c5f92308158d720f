"""Distances of parameters from their start."""

import copy
import math
import re

import pytest
import torch
from torch import Tensor, nn

from overparam.measure.comparison.movement import Parameters, parameter_movement


def test_norms_are_those_of_all_parameters_together() -> None:
    init = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[4.0]])}
    final = {"b": torch.tensor([[16.0]]), "a": torch.tensor([3.0, 5.0])}
    found = parameter_movement(init, final)
    assert (found.absolute, found.relative, float(found)) == (13.0, 2.6, 2.6)
    assert found.per_parameter == {"a": 5.0 / 3.0, "b": 3.0}


def test_modules_are_their_parameters() -> None:
    norm = nn.BatchNorm1d(4)
    init = nn.Sequential(nn.Linear(3, 4), norm)
    final = copy.deepcopy(init)
    assert parameter_movement(init, final).relative == 0.0
    with torch.no_grad():
        for p in final.parameters():
            p.mul_(1.5)
        for buffer in final.buffers():
            buffer.add_(9)
    final[0].weight.requires_grad_(False)
    found = parameter_movement(init, final)
    assert found.relative == pytest.approx(0.5, rel=1e-6)
    assert found.per_parameter == pytest.approx({"0.weight": 0.5, "0.bias": 0.5, "1.weight": 0.5, "1.bias": 0.0})
    assert parameter_movement(dict(init.named_parameters()), final) == found


def test_a_start_at_zero_moves_by_infinity_or_not_at_all() -> None:
    zero, one = torch.zeros(2), torch.ones(2)
    found = parameter_movement({"w": one, "b": zero, "c": zero}, {"w": one, "b": one, "c": zero})
    assert found.per_parameter == {"w": 0.0, "b": math.inf, "c": 0.0}
    assert found.relative == pytest.approx(1.0)
    assert float(parameter_movement({"b": zero}, {"b": one})) == math.inf
    assert float(parameter_movement({"b": zero}, {"b": zero})) == 0.0


def test_sums_run_in_float64() -> None:
    """A change that float32 would lose in 10⁶ squares, and half precision that would overflow in one."""
    init = torch.ones(1_000_000)
    final = init.clone()
    final[0] = 1.0 + 2**-20
    assert parameter_movement({"w": init}, {"w": final}).absolute == 2**-20
    half = torch.full((4,), 6e4, dtype=torch.float16)
    assert parameter_movement({"w": half}, {"w": -half}).relative == 2.0


W = torch.ones(2)


@pytest.mark.parametrize(
    ("init", "final", "match"),
    [
        ({"w": W, "a": W}, {"w": W, "b": W}, "only one of init and final has a, b"),
        ({"w": W}, {"w": torch.ones(3)}, "w has shape (2,) before and (3,) after"),
        ({"w": W}, {"w": W * math.nan}, "w holds 2 values that are not finite"),
        ({"w": W, "n": torch.tensor(3)}, {"w": W, "n": torch.tensor(4)}, "n is torch.int64; allowed: parameters"),
        ({}, {}, "there are no parameters to compare"),
        (nn.ReLU(), nn.ReLU(), "there are no parameters to compare"),
    ],
    ids=str,
)
def test_parameters_that_cannot_be_compared_are_errors(init: Parameters, final: Parameters, match: str) -> None:
    with pytest.raises(ValueError, match=re.escape(match)):
        parameter_movement(init, final)


def test_nothing_is_changed() -> None:
    init, final = torch.ones(2, requires_grad=True), torch.zeros(2)
    parameter_movement({"w": init}, {"w": final})
    assert torch.equal(init, Tensor([1.0, 1.0])) and init.grad is None
