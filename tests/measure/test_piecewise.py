"""ReLU and max-pooling under `SecondOrder` against PyTorch's own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overparam.measure.operators import CurvatureOperator
from overparam.measure.problem import opened
from overparam.measure.second_order import SecondOrder
from tests.support.networks import rows, shaken
from tests.support.oracles import (
    assert_close,
    assert_same_derivatives,
    plain_products,
    random_vectors,
    tensors,
)

WINDOWS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (2, {}),
    "overlapping": (3, {"stride": 1}),
    "stride that leaves a rest": (2, {"stride": 3}),
    "padding": (3, {"stride": 2, "padding": 1}),
    "dilation": (2, {"dilation": 2}),
    "ceil mode": (2, {"ceil_mode": True}),
    "uneven": ((1, 2), {"stride": (2, 1), "padding": (0, 1)}),
    "one-element lists": ([2], {"stride": [2]}),
}


def curved(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The operation between curved ones, so that cotangents and second derivatives pass through it."""
    return lambda x: function(torch.tanh(x) + x)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", WINDOWS)
def test_max_pooling_has_pytorchs_derivatives(name: str, order: torch.memory_format) -> None:
    window, options = WINDOWS[name]
    (x,) = tensors((2, 3, 7, 6))
    x = x.contiguous(memory_format=order)
    assert assert_same_derivatives(curved(lambda x: F.max_pool2d(x, window, **options)), [x]).unbatched
    assert assert_same_derivatives(curved(nn.MaxPool2d(window, **options)), [x]).unbatched


def test_the_order_of_memory_is_kept() -> None:
    """What it is for: behind a pooling in channels-last order nothing has to be copied."""
    x = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    with SecondOrder():
        out = F.max_pool2d(x, 2)
    dual = torch.ones_like(out, requires_grad=True)
    (back,) = torch.autograd.grad(out, x, dual, create_graph=True)
    (again,) = torch.autograd.grad(back, dual, torch.randn(x.shape).contiguous(memory_format=torch.channels_last))
    for each in (out, back, again):
        assert each.is_contiguous(memory_format=torch.channels_last)


def test_pooling_that_gives_indices_or_has_no_batch_axis_stays_pytorchs() -> None:
    (x,) = tensors((2, 3, 6, 6))
    indices = curved(lambda x: F.max_pool2d(x, 2, return_indices=True)[0])
    assert not assert_same_derivatives(indices, [x]).unbatched
    assert not assert_same_derivatives(curved(lambda x: F.max_pool2d(x, 2)), [x[0]]).unbatched


@pytest.mark.parametrize("name", WINDOWS)
def test_max_pooling_right_after_relu_comes_first_and_changes_nothing(name: str) -> None:
    """Whole numbers have many ties, at zero and above."""
    window, options = WINDOWS[name]
    x = tensors((2, 3, 7, 6))[0].mul(1.5).round()
    assert_same_derivatives(curved(lambda x: F.max_pool2d(F.relu(x), window, **options)), [x])
    with SecondOrder():
        out = F.max_pool2d(F.relu(x.requires_grad_()), window, **options)
    assert "ReLU" in type(out.grad_fn).__name__


def _changed_input(x: Tensor) -> Tensor:
    inside = x + 0.0
    out = F.relu(inside)
    inside.mul_(-1.0)
    return F.max_pool2d(out, 2) + inside.sum()


def _another_between(x: Tensor) -> Tensor:
    out = F.relu(x)
    return F.max_pool2d(out, 2) + F.max_pool2d(F.relu(-x), 2) + F.max_pool2d(out, 2)


@pytest.mark.parametrize("function", [_changed_input, _another_between])
def test_max_pooling_of_something_else_than_the_last_relu(function: Callable[[Tensor], Tensor]) -> None:
    assert_same_derivatives(curved(function), tensors((2, 3, 6, 6)))


RELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": F.relu,
    "torch.relu": torch.relu,
    "method": lambda x: x.relu(),
    "keyword": lambda x: F.relu(input=x),
    "module": nn.ReLU(),
    "in place": lambda x: F.relu(x.clone(), inplace=True),
    "in place, positional": lambda x: F.relu(x.clone(), True),
}


@pytest.mark.parametrize("name", RELUS)
def test_relu_has_pytorchs_derivatives(name: str) -> None:
    assert not assert_same_derivatives(curved(RELUS[name]), tensors((4, 5))).unbatched


def test_relu_in_place_changes_its_input() -> None:
    x = torch.tensor([-1.0, 2.0])
    with SecondOrder():
        F.relu(x, inplace=True)
    assert x.tolist() == [0.0, 2.0]


def test_a_block_passes_relu_in_one_traversal() -> None:
    """A small ReLU network takes all vectors at once; they have the rows of the Hessian."""
    model, (x, y) = (
        shaken(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))),
        rows(),
    )
    with opened(model, "cross_entropy", (x, y)) as problem:
        operator = CurvatureOperator(problem)
        vectors = random_vectors(5, operator.size)
        assert_close(operator(vectors), plain_products(model, "cross_entropy", x, y, vectors))


def test_at_the_kink_the_derivative_is_zero() -> None:
    """As PyTorch has it: of two choices the same one."""
    x = torch.tensor([0.0, -0.0, 1.0], dtype=torch.float64)
    assert_same_derivatives(lambda x: F.relu(x), [x])
