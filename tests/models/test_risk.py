"""Losses and risks against float64 closed forms and naive sums."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.models.losses import batch_mean, cross_entropy_per_example, mse_per_example
from overparam.models.risk import risk


@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 60.0))
@settings(max_examples=50, deadline=None)
def test_margin_form_equals_cross_entropy_in_float64(seed: int, scale: float) -> None:
    generator = torch_generator(seed, "test")
    logits = scale * torch.randn(20, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 5, (20,), generator=generator)
    expected = F.cross_entropy(logits, labels, reduction="none")
    assert torch.allclose(cross_entropy_per_example(logits, labels), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("margin", [10.0, 20.0, 40.0, 80.0])
def test_margin_form_keeps_its_digits_in_float32(margin: float) -> None:
    """At margin m the loss is log(1 + e^−m); PyTorch's own is 0 in float32 from m ≈ 17 on."""
    logits = torch.tensor([[margin, 0.0]])
    value = float(cross_entropy_per_example(logits, torch.tensor([0])))
    assert value == pytest.approx(float(torch.tensor(-margin, dtype=torch.float64).exp().log1p()), rel=1e-6)
    assert margin < 17 or float(F.cross_entropy(logits, torch.tensor([0]))) == 0.0


def test_mse_is_half_the_squared_distance_to_one_hot() -> None:
    outputs = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    assert mse_per_example(outputs, torch.tensor([0, 1])).tolist() == [2.0, 0.0]
    assert mse_per_example(outputs, torch.tensor([[1.0, 0.0], [0.0, 3.0]])).tolist() == [2.0, 2.0]
    assert float(batch_mean("mse", outputs, torch.tensor([0, 1]))) == 1.0


@pytest.mark.parametrize("count", [1, 999, 1000, 1001, 2500])
def test_risk_weighs_a_ragged_chunk_by_its_size(count: int) -> None:
    generator = torch_generator(0, "test")
    x, y = torch.randn(count, 4, generator=generator), torch.randint(0, 3, (count,), generator=generator)
    model = nn.Linear(4, 3)
    found = risk(model, x, y)
    with torch.no_grad():
        logits = model(x)
    assert found.loss == pytest.approx(float(F.cross_entropy(logits.double(), y)), rel=1e-5)
    assert found.accuracy == int((logits.argmax(1) == y).sum()) / count
    assert found.count == count
    assert found.bits is not None
    assert np.unpackbits(found.bits, count=count).tolist() == (logits.argmax(1) == y).tolist()


def test_risk_evaluates_in_eval_mode_and_puts_the_mode_back() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.9), nn.Linear(4, 3))
    x, y = torch.randn(50, 4, generator=torch_generator(0, "test")), torch.zeros(50, dtype=torch.long)
    model.train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    assert risk(model, x, y) == risk(model, x, y)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_risk_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty data set"):
        risk(nn.Linear(4, 3), torch.empty(0, 4), torch.empty(0, dtype=torch.long))


def test_outputs_that_are_no_numbers_predict_nothing() -> None:
    """argmax of a row of NaN is 0, which may be the label."""
    model, x, y = nn.Linear(2, 3), torch.full((4, 2), torch.nan), torch.zeros(4, dtype=torch.long)
    assert risk(model, x, y).accuracy == 0.0
    with opened(nn.Linear(2, 3), "cross_entropy", (torch.ones(4, 2), y)) as problem:
        loss, accuracy = problem.risk(torch.full_like(problem.theta, torch.nan))
    assert math.isnan(loss) and accuracy == 0.0
