"""Arithmetic on layers: shapes as the networks have them, and exact counts of what pruning leaves."""

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overparam.foundations.torch_generators import torch_generator
from overparam.models.build import build
from overparam.specs import CNN, MLP
from overparam.specs.models.layers import Shape
from overparam.specs.models.model import weight_shapes
from overparam.specs.pruning_rates import erdos_renyi_counts, pruned_count, rates_by_name

NAMES = ["1.weight", "3.weight", "5.weight"]

shapes = st.lists(st.lists(st.integers(1, 12), min_size=2, max_size=4).map(tuple), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (MLP(width=5), (1, 28, 28)),
        (MLP(width=5, depth=1), (3, 4, 4)),
        (MLP(width=(7, 3), bias=False), (40,)),
        (MLP(width=(300, 100), parameterization="ntk"), (1, 28, 28)),
        (MLP(width=4, depth=2, parameterization="ntk", bias=False, activation="erf"), (9,)),
        (CNN(channels=2), (3, 32, 32)),
        (CNN(channels=2, batch_norm=False), (3, 17, 9)),
        (CNN(channels=3), (1, 8, 8)),
        (CNN(channels=3), (40,)),
        (CNN(channels=1, batch_norm=False), (11,)),
    ],
)
def test_names_and_shapes_are_those_of_the_network(spec: MLP | CNN, shape: Shape) -> None:
    model = build(spec, shape, 7, generator=torch_generator(0, "init"))
    expected = [(name, tuple(value.shape)) for name, value in model.named_parameters() if value.dim() >= 2]
    assert list(weight_shapes(spec, shape, 7).items()) == expected


@pytest.mark.parametrize("shape", [(), (7,), (1, 4, 4), (8, 8), (3, 32, 7)])
def test_inputs_that_vanish_in_a_cnn_have_no_shapes(shape: Shape) -> None:
    with pytest.raises(ValueError, match="at least 8 per axis, got shape"):
        weight_shapes(CNN(channels=2), shape, 10)


@pytest.mark.parametrize(("fraction", "remaining", "count"), [(0.5, 5, 2), (0.5, 7, 4), (0.2, 0, 0), (1.0, 9, 9)])
def test_counts_are_rounded_half_to_even(fraction: float, remaining: int, count: int) -> None:
    assert pruned_count(fraction, remaining) == count


@pytest.mark.parametrize("fraction", [-0.1, 1.0001, float("nan"), float("inf")])
def test_no_more_than_everything_is_pruned(fraction: float) -> None:
    with pytest.raises(ValueError, match=rf"fraction={fraction} .*; allowed: 0 to 1"):
        pruned_count(fraction, 10)


@pytest.mark.parametrize(
    ("fraction", "rates"),
    [
        (0.3, [0.3, 0.3, 0.3]),
        ({"rest": 0.2, "last": 0.1}, [0.2, 0.2, 0.1]),
        ({"last": 0.1, "rest": 0.2, "first": 0.0}, [0.0, 0.2, 0.1]),
        ({"3": 0.5}, [0.0, 0.5, 0.0]),
        ({"3.weight": 0.5, "rest": 1.0}, [1.0, 0.5, 1.0]),
        ({"rest": 0.2}, [0.2, 0.2, 0.2]),
        ({}, [0.0, 0.0, 0.0]),
    ],
)
def test_rates_are_those_of_the_keys(fraction: Any, rates: list[float]) -> None:
    assert list(rates_by_name(NAMES, fraction).items()) == list(zip(NAMES, rates, strict=True))


def test_a_layer_called_by_a_word_is_reached_by_its_tensor() -> None:
    names = ["stem.weight", "first.weight"]
    assert rates_by_name(names, {"first": 0.1, "first.weight": 0.2}) == {"stem.weight": 0.1, "first.weight": 0.2}
    assert rates_by_name(["stem", "first"], {"first": 0.1}) == {"stem": 0.0, "first": 0.1}


@pytest.mark.parametrize(
    ("names", "fraction", "message"),
    [
        (NAMES, {"2.weight": 0.1}, r'fraction\["2.weight"\]: no such tensor; allowed: 1.weight, .*first, last, rest'),
        (NAMES, {"lats": 0.1}, "nearest match: last$"),
        (NAMES, {"rst": 0.1}, "nearest match: rest$"),
        (NAMES, {"5.wieght": 0.1}, "nearest match: 5.weight$"),
        (NAMES, {"1.bias": 0.1}, "no such tensor"),
        ([], {"first": 0.1}, "no such tensor"),
        (NAMES, {"first": 0.1, "1.weight": 0.1}, 'fraction: "first" and "1.weight" both name the tensor 1.weight'),
        (NAMES, {"3": 0.1, "3.weight": 0.1}, '"3" and "3.weight" both name the tensor 3.weight'),
        (["1.weight"], {"first": 0.1, "last": 0.1}, '"first" and "last" both name the tensor 1.weight'),
        (NAMES, {"rest": 1.5}, r'fraction\["rest"\]=1.5 .*allowed: 0 to 1'),
        (NAMES, {"last": float("nan")}, r'fraction\["last"\]=nan'),
    ],
)
def test_unclear_rates_are_refused(names: list[str], fraction: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rates_by_name(names, fraction)


@given(shapes=shapes, share=st.fractions(0, 1))
def test_erdos_renyi_counts_sum_exactly_and_fit(shapes: list[Shape], share: Fraction) -> None:
    named = {str(i): shape for i, shape in enumerate(shapes)}
    keep = int(share * sum(map(math.prod, shapes)))
    counts = erdos_renyi_counts(named, keep)
    assert list(counts) == list(named)
    assert sum(counts.values()) == keep
    assert all(0 <= counts[name] <= math.prod(shape) for name, shape in named.items())


def wanted(shapes: list[Shape], keep: int) -> list[Fraction]:
    """Counts before rounding: `min(size, ε Σ dims)`, with ε by bisection, apart from the rule's own rounds."""
    low, high = Fraction(0), Fraction(max(map(math.prod, shapes)))
    for _ in range(60):
        middle = (low + high) / 2
        total = sum(min(Fraction(math.prod(shape)), middle * sum(shape)) for shape in shapes)
        low, high = (middle, high) if total < keep else (low, middle)
    return [min(Fraction(math.prod(shape)), high * sum(shape)) for shape in shapes]


@given(shapes=shapes, share=st.fractions(0, 1))
def test_erdos_renyi_counts_are_the_capped_densities(shapes: list[Shape], share: Fraction) -> None:
    keep = int(share * sum(map(math.prod, shapes)))
    counts = erdos_renyi_counts({str(i): shape for i, shape in enumerate(shapes)}, keep)
    exact = wanted(shapes, keep)
    assert all(abs(count - real) < 1 + 1e-9 for count, real in zip(counts.values(), exact, strict=True))


def test_erdos_renyi_remainders_go_to_the_largest_then_to_the_earlier() -> None:
    assert erdos_renyi_counts({"a": (5, 5), "b": (5, 5), "c": (5, 5)}, 8) == {"a": 3, "b": 3, "c": 2}
    assert erdos_renyi_counts({"a": (4, 6), "b": (4, 9), "c": (9, 9)}, 10) == {
        "a": 3,
        "b": 3,
        "c": 4,
    }  # 2.44, 3.17, 4.39
    assert erdos_renyi_counts({"a": (4, 6), "b": (9, 9), "c": (9, 9)}, 10) == {"a": 2, "b": 4, "c": 4}  # 2.2, 3.9, 3.9


def test_erdos_renyi_refills_others_until_none_overflows() -> None:
    """First c would overflow, and only with its surplus b does too."""
    counts = erdos_renyi_counts({"a": (100, 100), "b": (3, 6), "c": (1, 50)}, 510)  # at first 392.3, 17.7, 100.0
    assert counts == {"a": 442, "b": 18, "c": 50}


@pytest.mark.parametrize("keep", [-1, 13])
def test_erdos_renyi_keeps_no_impossible_number(keep: int) -> None:
    with pytest.raises(ValueError, match=f"keep={keep} weights is impossible; allowed: 0 to 12"):
        erdos_renyi_counts({"a": (3, 4)}, keep)
