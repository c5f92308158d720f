"""The noise scale against closed forms, a plain transcription, and populations whose noise is known."""

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.gradient_noise import NoiseScale, gradient_noise_scale, noise_scale
from tests.support.networks import rows, smooth_mlp

F64 = torch.float64


def per_example_gradients(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    parameters = list(model.parameters())
    losses = nn.functional.cross_entropy(model(x), y, reduction="none")
    found = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
    return torch.stack([torch.cat([part.reshape(-1) for part in parts]) for parts in found]).double()


def of_gradients(gradients: Tensor) -> tuple[float, float]:
    """`tr Σ` and `‖G‖²` as statistics books have them."""
    n, centre = len(gradients), gradients.mean(0)
    trace = float((gradients - centre).square().sum()) / (n - 1)
    return trace, float(centre.square().sum()) - trace / n


def test_groups_of_one_give_the_moments_of_single_gradients() -> None:
    model, (x, y) = smooth_mlp(), rows(12)
    trace, squared = of_gradients(per_example_gradients(model, x, y))
    found = gradient_noise_scale(model, "cross_entropy", (x, y))
    assert (found.trace, found.squared_norm) == pytest.approx((trace, squared), rel=1e-4)
    assert found.value == pytest.approx(trace / squared, rel=1e-4)
    assert found.num_products == 12


def test_the_interval_is_fiellers_with_the_jackknife() -> None:
    """Its ends are where a test of `a − R b = 0` is just not rejected."""
    gradients = torch.randn(9, 3, generator=torch_generator(0, "g"), dtype=F64) + 2.0
    found = noise_scale(gradients @ gradients.T, torch.ones(9, dtype=F64))
    without = [of_gradients(gradients[torch.arange(9) != i]) for i in range(9)]
    for end in (found.lower, found.upper):
        differences = [a - end * b for a, b in without]
        mean = math.fsum(differences) / 9
        deviation = math.sqrt(8 / 9 * math.fsum((d - mean) ** 2 for d in differences))
        assert abs(found.trace - end * found.squared_norm) == pytest.approx(2.306 * deviation, rel=1e-3)  # t, 8 degrees
    assert found.lower < found.value < found.upper
    assert found.stderr > 0.0


def deals(sizes: list[int]) -> list[tuple[int, ...]]:
    """All ways to deal out examples to groups of these sizes: the group of each example."""
    return sorted(set(permutations(group for group, size in enumerate(sizes) for _ in range(size))))


@given(st.integers(0, 10_000), st.lists(st.integers(1, 4), min_size=3, max_size=5).filter(lambda sizes: sum(sizes) < 8))
@settings(max_examples=30, deadline=None)
def test_any_partition_is_unbiased(seed: int, sizes: list[int]) -> None:
    """Over all ways to deal out the examples the estimates have exactly the mean that single examples give."""
    gradients = torch.randn(sum(sizes), 2, generator=torch_generator(seed, "g"), dtype=F64)
    counts, found = torch.tensor(sizes, dtype=F64), []
    for deal in deals(sizes):
        sums = torch.zeros(len(sizes), 2, dtype=F64).index_add(0, torch.tensor(deal), gradients)
        means = sums / counts[:, None]
        one = noise_scale(means @ means.T, counts)
        found.append((one.trace, one.squared_norm))
    assert torch.tensor(found, dtype=F64).mean(0).tolist() == pytest.approx(of_gradients(gradients), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("dimension", "signal"), [(1, 0.5), (20, 0.2), (20, 1.0)])
def test_the_interval_covers_a_known_population(dimension: int, signal: float) -> None:
    covered, draws = 0, 400
    truth = dimension / (dimension * signal**2)
    for draw in range(draws):
        gradients = torch.randn(256, dimension, generator=torch_generator(draw, "population"), dtype=F64) + signal
        means = gradients.reshape(32, 8, dimension).mean(1)
        found = noise_scale(means @ means.T, torch.full((32,), 8.0, dtype=F64))
        covered += found.lower <= truth <= found.upper
    assert covered / draws >= 0.91  # 95 % less four standard errors


def test_at_a_minimum_the_interval_is_open() -> None:
    """Where the mean gradient may be zero no batch is large enough."""
    wide = 0
    for draw in range(50):
        gradients = torch.randn(32, 5, generator=torch_generator(draw, "minimum"), dtype=F64)
        found = noise_scale(gradients @ gradients.T, torch.ones(32, dtype=F64))
        assert found.value > 0.0
        assert (found.value == math.inf) == (found.squared_norm <= 0.0)
        assert 0.0 <= found.lower <= found.value
        wide += found.upper == math.inf
    assert wide >= 40


def test_equal_examples_have_no_noise() -> None:
    model, (x, y) = smooth_mlp(), rows(1)
    found = gradient_noise_scale(model, "cross_entropy", (x.expand(8, -1), y.expand(8)))
    assert found.value == pytest.approx(0.0, abs=1e-9)
    assert found.upper == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1e3])
def test_the_unit_of_the_loss_does_not_matter(scale: float) -> None:
    model, pair = smooth_mlp(), rows(12)

    def scaled(outputs: Tensor, y: Tensor) -> Tensor:
        return scale * nn.functional.cross_entropy(outputs, y, reduction="none")

    plain, found = (gradient_noise_scale(model, loss, pair) for loss in ("cross_entropy", scaled))
    assert (found.value, found.lower, found.upper) == pytest.approx((plain.value, plain.lower, plain.upper), rel=1e-3)


def test_the_generator_deals_out_the_groups() -> None:
    model, pair = smooth_mlp(), rows(40)

    def drawn(seed: int) -> NoiseScale:
        return gradient_noise_scale(model, "cross_entropy", pair, groups=5, generator=torch_generator(seed, "own"))

    assert drawn(0) == drawn(0)
    assert drawn(0).trace != drawn(1).trace
    assert drawn(0).num_products == 5


@pytest.mark.parametrize(("count", "groups", "message"), [(2, 32, "at least 3"), (9, 2, "groups = 2; allowed")])
def test_too_few_are_refused(count: int, groups: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gradient_noise_scale(smooth_mlp(), "cross_entropy", rows(count), groups=groups)
