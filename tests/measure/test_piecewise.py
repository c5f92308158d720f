"""ReLU and max-pooling under `SecondOrder` against PyTorch's own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overparam.measure.problem.opening import opened
from overparam.measure.products.operators import CurvatureOperator
from overparam.measure.products.second_order import SecondOrder
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


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", WINDOWS)
def test_max_pooling_right_after_relu_comes_first_and_changes_nothing(name: str, order: torch.memory_format) -> None:
    """Whole numbers have many ties, at zero and above."""
    window, options = WINDOWS[name]
    x = tensors((2, 3, 7, 6))[0].mul(1.5).round().contiguous(memory_format=order)
    assert_same_derivatives(curved(lambda x: F.max_pool2d(F.relu(x), window, **options)), [x])
    assert swapped(lambda x: F.max_pool2d(F.relu(x), window, **options))


def swapped(function: Callable[[Tensor], Tensor]) -> bool:
    """Whether the last operation is the ReLU."""
    with SecondOrder():
        out = function(torch.randn(2, 3, 7, 6).requires_grad_() + 0.0)
    return "ReLU" in type(out.grad_fn).__name__


def _changed_input(x: Tensor) -> Tensor:
    inside = x + 0.0
    out = F.relu(inside)
    inside.mul_(-1.0)
    return F.max_pool2d(out, 2) + inside.sum()


def _another_between(x: Tensor) -> Tensor:
    out = F.relu(x)
    return F.max_pool2d(out, 2) + F.max_pool2d(F.relu(-x), 2) + F.max_pool2d(out, 2)


def _changed_result(x: Tensor) -> Tensor:
    return F.max_pool2d(F.relu(x), 2).mul_(x.mean())


def _used_on(x: Tensor) -> Tensor:
    out = F.relu(x)
    return F.max_pool2d(out, 2) * out.square().sum()


def _cut_off(x: Tensor) -> Tensor:
    with torch.no_grad():
        out = F.relu(x)
    return F.max_pool2d(out, 2) * x.sum()


def _detached(x: Tensor) -> Tensor:
    return F.max_pool2d(F.relu(x).detach_(), 2) * x.sum()


def _in_inference_mode(x: Tensor) -> Tensor:
    with torch.inference_mode():
        out = F.relu(x.detach() + 1.0)
    return F.max_pool2d(out.clone(), 2) * x.sum()


def _hooked(x: Tensor) -> Tensor:
    out = F.relu(x)
    if out.requires_grad:
        out.register_hook(lambda g: 2.0 * g)  # type: ignore[no-untyped-call]
    return F.max_pool2d(out, 2)


AROUND = [
    _changed_input,
    _another_between,
    _changed_result,
    _used_on,
    _cut_off,
    _detached,
    _in_inference_mode,
    _hooked,
]


@pytest.mark.parametrize("function", AROUND, ids=[each.__name__.strip("_") for each in AROUND])
def test_what_a_model_does_around_relu_and_max_pooling_is_kept(function: Callable[[Tensor], Tensor]) -> None:
    assert_same_derivatives(curved(function), tensors((2, 3, 6, 6)))


def test_a_relu_that_keeps_its_gradient_is_not_passed_over() -> None:
    def keeping(x: Tensor) -> Tensor:
        out = F.relu(x)
        out.retain_grad()
        return F.max_pool2d(out, 2)

    assert not swapped(keeping)


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
