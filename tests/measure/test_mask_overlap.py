"""Masks against counts by hand, and their overlap against the hypergeometric distribution."""

import math
import re
from itertools import permutations
from statistics import mean

import pytest
import torch
from scipy import stats
from torch import Tensor

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.comparison.masks import (
    DeadUnits,
    dead_units,
    density_profile,
    expected_by_inputs,
    mask_overlap,
)
from overparam.models.masks import Mask

LAYERS = {"a.weight": ((6, 5), 12, 9), "b.weight": ((4, 6), 6, 20), "c.weight": ((3, 2, 3, 3), 30, 10)}


def kept(shape: tuple[int, ...], count: int, generator: torch.Generator) -> Tensor:
    """A mask of so many positions, drawn uniformly."""
    mask = torch.zeros(math.prod(shape), dtype=torch.bool)
    mask[torch.randperm(len(mask), generator=generator)[:count]] = True
    return mask.reshape(shape)


def drawn(which: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {name: kept(layer[0], (layer[1], layer[2])[which], generator) for name, layer in LAYERS.items()}


def first(count: int, size: int) -> Tensor:
    return torch.arange(size) < count


def test_expectation_and_variance_are_hypergeometric() -> None:
    generator = torch_generator(0, "test")
    found = mask_overlap(drawn(0, generator), drawn(1, generator))
    null = [stats.hypergeom(math.prod(shape), k_a, k_b) for shape, k_a, k_b in LAYERS.values()]
    assert found.expected == pytest.approx(sum(float(each.mean()) for each in null), rel=1e-12)
    assert found.stderr == pytest.approx(math.sqrt(sum(float(each.var()) for each in null)), rel=1e-12)


def test_z_of_random_masks_has_mean_0_and_variance_1() -> None:
    """Within five standard errors; a null over all layers at once, whose densities differ, would be far outside."""
    generator = torch_generator(0, "test")
    count = 2000
    z = torch.tensor([mask_overlap(drawn(0, generator), drawn(1, generator)).z for _ in range(count)]).double()
    assert abs(float(z.mean())) < 5.0 / math.sqrt(count)
    assert abs(float(z.var()) - 1.0) < 5.0 * math.sqrt(2.0 / count)


def test_shared_weights_are_counted_where_they_are() -> None:
    a = {"v": torch.tensor([[True, True], [False, False]]), "w": first(3, 5)}
    b = {"w": first(2, 5), "v": torch.tensor([[False, True], [False, True]])}
    found = mask_overlap(a, b)
    assert found.shared == 3 and found.jaccard == 3 / 6
    assert found.expected == pytest.approx(1.0 + 6 / 5) and found.excess == pytest.approx(3 / 2.2)
    assert found.z == pytest.approx((3 - 2.2) / math.sqrt(1 / 3 + 3 * 2 * 2 * 3 / (25 * 4)))
    assert mask_overlap(b, a) == found


def test_outputs_that_are_renamed_share_what_is_expected_by_inputs() -> None:
    """All renamings of one layer at a time; a kernel's places are inputs of their own, and a vector has no inputs."""
    generator = torch_generator(0, "renamed")
    for shape in ((4, 5), (4, 2, 3, 1), (4,)):
        a, b = ({"w": kept(shape, count, generator)} for count in (9 * math.prod(shape) // 20, math.prod(shape) // 2))
        renamed = [mask_overlap({"w": a["w"][list(order)]}, b).shared for order in permutations(range(4))]
        assert expected_by_inputs(a, b) == pytest.approx(mean(renamed))
    both = expected_by_inputs({"u": a["w"], "w": a["w"]}, {"u": b["w"], "w": b["w"]})
    assert both == pytest.approx(2 * expected_by_inputs(a, b)), "layers add up"


def test_identical_and_disjoint_masks_are_the_extremes() -> None:
    one, other = {"w": first(2, 8)}, {"w": first(8, 8) & ~first(2, 8)}
    same, apart = mask_overlap(one, one), mask_overlap(one, other)
    assert (same.shared, same.excess, same.jaccard) == (2, 4.0, 1.0) and same.z > 0.0
    assert (apart.shared, apart.excess, apart.jaccard) == (0, 0.0, 0.0) and apart.z == -same.z


@pytest.mark.parametrize(
    ("a", "b", "shared", "jaccard"),
    [
        (first(1, 1), first(1, 1), 1, 1.0),
        (first(1, 1), first(0, 1), 0, 0.0),
        (first(7, 7), first(3, 7), 3, 3 / 7),
        (first(0, 7), first(3, 7), 0, 0.0),
        (first(0, 7), first(0, 7), 0, 1.0),
    ],
    ids=["one weight", "one weight, apart", "full", "empty", "both empty"],
)
def test_layers_without_chance_share_what_is_expected(a: Tensor, b: Tensor, shared: int, jaccard: float) -> None:
    found = mask_overlap({"w": a}, {"w": b})
    assert (found.shared, found.expected, found.stderr) == (shared, float(shared), 0.0)
    assert (found.z, found.excess, found.jaccard) == (0.0, 1.0, jaccard)
    rest = {"v": first(2, 4)}  # such a layer beside another leaves its z alone
    assert mask_overlap({"w": a, **rest}, {"w": b, **rest}).z == pytest.approx(mask_overlap(rest, rest).z)


def test_counts_do_not_overflow() -> None:
    """Products of four counts exceed 64 bits in layers of some 10⁵ weights."""
    half = {"w": first(500_000, 1_000_000)}
    assert mask_overlap(half, half).stderr == pytest.approx(250.0, rel=1e-6)


def test_density_is_that_of_each_layer() -> None:
    assert density_profile({"w": first(3, 4), "v": first(0, 2), "u": first(2, 2)}) == {"w": 0.75, "v": 0.0, "u": 1.0}


def test_dead_units_of_linear_and_convolution() -> None:
    linear, conv = torch.zeros(3, 5, dtype=torch.bool), torch.zeros(4, 3, 2, 2, dtype=torch.bool)
    linear[0, 1] = linear[0, 2] = linear[2, 1] = True
    conv[0, 1, 1, 0] = conv[0, 1, 0, 1] = conv[3, 2, 0, 0] = True
    found = dead_units({"linear": linear, "conv": conv})
    assert found == {"linear": DeadUnits(outputs=1, inputs=3), "conv": DeadUnits(outputs=2, inputs=1)}


W = first(1, 2)


@pytest.mark.parametrize(
    ("a", "b", "match"),
    [
        ({"w": W, "u": W}, {"w": W, "v": W}, "only one of a and b has u, v"),
        ({"w": W}, {"w": W[None]}, "w has shape (2,) in a and (1, 2) in b; allowed: the same shape"),
        ({"w": W}, {"w": W.float()}, "w of b is torch.float32; allowed: torch.bool"),
        ({}, {}, "a has no layers"),
        ({"w": W[:0]}, {"w": W[:0]}, "w of a has shape (0,); allowed: at least one weight"),
    ],
    ids=str,
)
def test_masks_that_cannot_be_compared_are_errors(a: Mask, b: Mask, match: str) -> None:
    with pytest.raises(ValueError, match=re.escape(match)):
        mask_overlap(a, b)


def test_units_need_two_dimensions() -> None:
    with pytest.raises(ValueError, match=re.escape("w of mask has shape (2,); allowed: (outputs, inputs, …)")):
        dead_units({"w": W})
