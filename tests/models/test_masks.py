"""Masks: exactly which weights are pruned, and that nothing else is touched."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from overparam.foundations.torch_generators import torch_generator
from overparam.models.build import build
from overparam.models.masks import Mask, density, magnitude_mask, masked, prunable, random_mask, regrown, shuffled_mask
from overparam.specs import CNN, MLP
from overparam.specs.pruning_rates import erdos_renyi_counts

Weights = dict[str, Tensor]
# Frankle & Carbin (2019): rounds → percent of LeNet-300-100 that is left, by 20 % per layer and 10 % of the last.
LEFT = {1: 80.04, 2: 64.06, 3: 51.28, 7: 21.07, 9: 13.52, 11: 8.68, 12: 6.95, 15: 3.58, 18: 1.85, 20: 1.19}

fractions = st.floats(0, 1)
scopes = st.sampled_from(["global", "layer"])
seeds = st.integers(0, 2**31)


@st.composite
def networks(draw: st.DrawFn) -> Weights:
    """Few values, so that there are ties between and within tensors, of both signs and of both zeros."""
    shapes = draw(st.lists(st.lists(st.integers(1, 4), min_size=2, max_size=3), min_size=1, max_size=4))
    generator = torch_generator(draw(seeds), "weights")
    values = torch.tensor([-2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0])
    weights: Weights = {}
    for i, shape in enumerate(shapes):
        weights[f"{i}.weight"] = values[torch.randint(7, tuple(shape), generator=generator)]
        weights[f"{i}.bias"] = torch.zeros(shape[0])
    return weights


def network(spec: MLP | CNN, shape: tuple[int, ...], seed: int = 0) -> Weights:
    return dict(build(spec, shape, 10, generator=torch_generator(seed, "init")).named_parameters())


def counts(mask: Mask) -> dict[str, int]:
    return {name: int(kept.sum()) for name, kept in mask.items()}


def equal(a: Mask, b: Mask) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def nested(inner: Mask, outer: Mask) -> bool:
    return all(not bool((inner[name] & ~outer[name]).any()) for name in outer)


def some_mask(weights: Weights, seed: int) -> Mask:
    generator = torch_generator(seed, "some")
    return {name: torch.rand(value.shape, generator=generator) < 0.6 for name, value in prunable(weights).items()}


def naive(weights: Weights, fraction: float, mask: Mask, scope: str) -> Mask:
    """The definition in plain Python: sort (|w|, tensor, position), drop the first."""
    places = [
        (abs(float(value)), i, j, name)
        for i, (name, tensor) in enumerate(prunable(weights).items())
        for j, value in enumerate(tensor.flatten().tolist())
        if mask[name].flatten()[j]
    ]
    groups = [places] if scope == "global" else [[place for place in places if place[3] == name] for name in mask]
    result = {name: kept.clone() for name, kept in mask.items()}
    for group in groups:
        for _, _, j, name in sorted(group)[: round(fraction * len(group))]:
            result[name].view(-1)[j] = False
    return result


def test_biases_and_batch_norm_are_not_prunable() -> None:
    weights = network(CNN(channels=2), (1, 8, 8))
    assert list(prunable(weights)) == [f"{i}.weight" for i in (0, 3, 7, 10, 14, 17, 22, 24)]
    assert list(magnitude_mask(weights, 0.5)) == list(prunable(weights))
    with pytest.raises(ValueError, match="nothing to prune; there are: bias"):
        prunable({"bias": torch.ones(3)})


@given(weights=networks(), fraction=fractions, scope=scopes, seed=seeds)
def test_magnitude_mask_is_its_definition(weights: Weights, fraction: float, scope: Any, seed: int) -> None:
    mask = some_mask(weights, seed)
    found = magnitude_mask(weights, fraction, mask=mask, scope=scope)
    assert equal(found, naive(weights, fraction, mask, scope))
    assert nested(found, mask)


@given(weights=networks(), fraction=fractions, scope=scopes, seed=seeds)
def test_no_mask_is_the_mask_of_all(weights: Weights, fraction: float, scope: Any, seed: int) -> None:
    ones = {name: torch.ones_like(value, dtype=torch.bool) for name, value in prunable(weights).items()}
    assert equal(
        magnitude_mask(weights, fraction, scope=scope), magnitude_mask(weights, fraction, mask=ones, scope=scope)
    )
    first, second = (
        random_mask(weights, fraction, mask=mask, scope=scope, generator=torch_generator(seed, "mask"))
        for mask in (None, ones)
    )
    assert equal(first, second)


@given(weights=networks(), small=fractions, large=fractions, scope=scopes)
def test_pruning_more_keeps_a_part_of_what_pruning_less_keeps(
    weights: Weights, small: float, large: float, scope: Any
) -> None:
    less, more = (magnitude_mask(weights, fraction, scope=scope) for fraction in sorted((small, large)))
    assert nested(more, less)


@given(weights=networks(), scope=scopes, seed=seeds)
def test_nothing_and_everything(weights: Weights, scope: Any, seed: int) -> None:
    mask, generator = some_mask(weights, seed), torch_generator(seed, "mask")
    makers: list[Callable[[float], Mask]] = [
        lambda fraction: magnitude_mask(weights, fraction, mask=mask, scope=scope),
        lambda fraction: random_mask(weights, fraction, mask=mask, scope=scope, generator=generator),
    ]
    for make in makers:
        assert equal(make(0.0), mask)
        assert set(counts(make(1.0)).values()) == {0}


@given(shape=st.lists(st.integers(1, 5), min_size=2, max_size=4), fraction=fractions, seed=seeds)
def test_for_one_layer_the_scopes_agree(shape: list[int], fraction: float, seed: int) -> None:
    weights = {"weight": torch.randn(shape, generator=torch_generator(seed, "w"))}
    both: list[Any] = ["global", "layer"]
    assert equal(*(magnitude_mask(weights, fraction, scope=scope) for scope in both))
    assert equal(
        *(random_mask(weights, fraction, scope=scope, generator=torch_generator(seed, "mask")) for scope in both)
    )


@pytest.mark.parametrize("size", [4, 100, 5000])
def test_of_equal_magnitudes_the_earlier_is_pruned_first(size: int) -> None:
    """Long enough that an unstable sort shows."""
    signs = torch.randint(2, (2, size), generator=torch_generator(0, "signs")) * 2.0 - 1.0
    for magnitude in (1.0, 0.0):
        weights = {"a.weight": magnitude * signs, "b.weight": magnitude * signs}
        mask = magnitude_mask(weights, 0.75)
        assert not mask["a.weight"].any() and not mask["b.weight"][0].any()
        assert mask["b.weight"][1].all()


def test_lenet_is_left_with_the_papers_percentages() -> None:
    weights, mask = network(MLP(width=(300, 100)), (1, 28, 28)), None
    left = {name: value.numel() for name, value in prunable(weights).items()}
    rates = dict(zip(left, (0.2, 0.2, 0.1), strict=True))
    for rounds in range(1, 21):
        mask = magnitude_mask(weights, {"rest": 0.2, "last": 0.1}, mask=mask, scope="layer")
        left = {name: count - round(rates[name] * count) for name, count in left.items()}
        assert counts(mask) == left
        if rounds in LEFT:
            assert round(100 * density(mask), 2) == LEFT[rounds]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_dtype_and_order_of_memory(dtype: torch.dtype) -> None:
    values = torch.randn(6, 4, 3, 3, generator=torch_generator(0, "w")).to(dtype)
    contiguous = magnitude_mask({"w": values}, 0.5)
    assert equal(contiguous, magnitude_mask({"w": values.to(memory_format=torch.channels_last)}, 0.5))
    assert equal(contiguous, magnitude_mask({"w": values.double()}, 0.5))


def test_dtypes_are_compared_exactly_with_each_other() -> None:
    weights = {"a": torch.tensor([[1.0, 3.0]], dtype=torch.bfloat16), "b": torch.tensor([[1.001, 0.999]])}
    assert counts(magnitude_mask(weights, 0.25)) == {"a": 2, "b": 1}
    assert magnitude_mask(weights, 0.5)["a"].tolist() == [[False, True]]


def test_inputs_are_left_alone_and_masks_have_their_own_memory() -> None:
    """Aliases of inputs, or of one long vector, would change or fail to be written later."""
    weights = network(MLP(width=4, depth=2), (3,))
    mask = some_mask(weights, 0)
    before = {name: value.detach().clone() for name, value in weights.items()}
    copied = {name: kept.clone() for name, kept in mask.items()}
    generator = torch_generator(0, "mask")
    both: list[Any] = ["global", "layer"]
    results = [shuffled_mask(mask, generator=generator)]
    for fraction in (0.0, 0.5):
        for scope in both:
            results.append(magnitude_mask(weights, fraction, mask=mask, scope=scope))
            results.append(random_mask(weights, fraction, mask=mask, scope=scope, generator=generator))
    masked(weights, mask)
    for result in results:
        memories = {part.untyped_storage().data_ptr() for part in (*result.values(), *mask.values())}
        assert len(memories) == len(result) + len(mask)
        assert all(part.dtype == torch.bool and not part.requires_grad for part in result.values())
        for part in result.values():
            part.fill_(True)
    assert equal(mask, copied)
    assert all(torch.equal(weights[name], before[name]) and weights[name].requires_grad for name in weights)


@given(weights=networks(), fraction=fractions, scope=scopes, seed=seeds)
def test_random_masks_prune_as_many(weights: Weights, fraction: float, scope: Any, seed: int) -> None:
    mask = some_mask(weights, seed)
    drawn = random_mask(weights, fraction, mask=mask, scope=scope, generator=torch_generator(seed, "mask"))
    smallest = magnitude_mask(weights, fraction, mask=mask, scope=scope)
    assert nested(drawn, mask)
    assert sum(counts(drawn).values()) == sum(counts(smallest).values())
    if scope == "layer":
        assert counts(drawn) == counts(smallest)


@given(weights=networks(), fraction=fractions, seed=seeds)
def test_erdos_renyi_masks_have_its_counts(weights: Weights, fraction: float, seed: int) -> None:
    shapes = {name: tuple(value.shape) for name, value in prunable(weights).items()}
    total = sum(value.numel() for value in prunable(weights).values())
    drawn = random_mask(weights, fraction, scope="erdos_renyi", generator=torch_generator(seed, "mask"))
    assert counts(drawn) == erdos_renyi_counts(shapes, total - round(fraction * total))


@pytest.mark.parametrize("scope", ["layer", "global", "erdos_renyi"])
def test_random_masks_are_uniform(scope: Any) -> None:
    """Each of 12 weights in 2000 draws at rate ½: |z| < 5 for all but one in 10⁵. Weights must not matter."""
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2, 3)}
    generator = torch_generator(0, "mask")
    total = torch.zeros(12)
    for _ in range(2000):
        total += torch.cat(
            [kept.flatten() for kept in random_mask(weights, 0.5, scope=scope, generator=generator).values()]
        )
    assert ((total - 1000).abs() / (2000 * 0.25) ** 0.5).max() < 5


def test_random_masks_come_from_the_generator_alone() -> None:
    weights = {name: torch.ones(20, 20) for name in ("a", "b")}
    state = torch.get_rng_state()
    first, again, other = (random_mask(weights, 0.5, generator=torch_generator(seed, "mask")) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert equal(first, again)
    assert not equal(first, other)
    assert not torch.equal(first["a"], first["b"])


def test_rates_per_layer_reach_random_masks() -> None:
    weights = {name: torch.ones(10, 10) for name in ("0.weight", "2.weight", "4.weight")}
    drawn = random_mask(weights, {"last": 0.1, "0": 0.5}, generator=torch_generator(0, "mask"))
    assert counts(drawn) == {"0.weight": 50, "2.weight": 100, "4.weight": 90}


@given(weights=networks(), seed=seeds)
def test_shuffling_keeps_the_counts_of_each_tensor(weights: Weights, seed: int) -> None:
    mask = some_mask(weights, seed)
    shuffled = shuffled_mask(mask, generator=torch_generator(seed, "mask"))
    assert counts(shuffled) == counts(mask)
    assert [kept.shape for kept in shuffled.values()] == [kept.shape for kept in mask.values()]


def test_shuffling_comes_from_the_generator_alone() -> None:
    mask, state = some_mask({"a": torch.ones(20, 20)}, 0), torch.get_rng_state()
    first, again, other = (shuffled_mask(mask, generator=torch_generator(seed, "mask")) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert equal(first, again) and not equal(first, other)


def test_shuffling_permutes_the_whole_tensor_and_each_differently() -> None:
    """One row of four is kept: permuted by rows or columns alone, it would stay a row."""
    kept = torch.zeros(10, 10, dtype=torch.bool)
    kept[0] = True
    shuffled = shuffled_mask({"a": kept, "b": kept}, generator=torch_generator(0, "mask"))
    assert not torch.equal(shuffled["a"], shuffled["b"])
    assert all(len({tuple(row) for row in part.tolist()}) > 3 for part in shuffled.values())


def test_density_is_the_share_of_weights_not_of_layers() -> None:
    mask = {"a": torch.zeros(2, 3, dtype=torch.bool), "b": torch.ones(1, 2, dtype=torch.bool)}
    assert density(mask) == 0.25
    with pytest.raises(ValueError, match="no weight"):
        density({})


def test_masked_weights_are_positive_zero_and_others_keep_their_bits() -> None:
    inf, nan = float("inf"), float("nan")
    values = torch.tensor([[-1.5, -0.0, inf, nan], [-1.5, -0.0, -inf, nan]])
    weights = {"w": values, "b": torch.tensor([-0.0, nan])}
    result = masked(weights, {"w": torch.tensor([[False] * 4, [True] * 4])})
    assert list(result) == ["w", "b"]
    assert result["w"].view(torch.int32)[0].tolist() == [0, 0, 0, 0]
    assert torch.equal(result["w"].view(torch.int32)[1], values.view(torch.int32)[1])
    assert result["b"] is weights["b"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_masked_weights_keep_their_dtype_and_pass_gradients_where_kept(dtype: torch.dtype) -> None:
    leaf = torch.ones(1, 2, dtype=dtype, requires_grad=True)
    result = masked({"w": leaf}, {"w": torch.tensor([[True, False]])})["w"]
    (gradient,) = torch.autograd.grad(result.sum(), leaf)
    assert result.dtype == dtype
    assert gradient.tolist() == [[1.0, 0.0]]


@given(weights=networks(), seed=seeds)
def test_masked_weights_have_not_regrown(weights: Weights, seed: int) -> None:
    mask = some_mask(weights, seed)
    pruned = masked(weights, mask)
    assert regrown(pruned, mask) is None
    grown = [name for name in mask if bool((weights[name][~mask[name]] != 0).any())]
    assert regrown(weights, mask) == (grown[0] if grown else None)


def test_nan_at_a_pruned_place_has_regrown() -> None:
    mask = {"w": torch.tensor([[False, True]])}
    assert regrown({"w": torch.tensor([[float("nan"), 1.0]])}, mask) == "w"
    assert regrown({"w": torch.tensor([[-0.0, float("nan")]])}, mask) is None


W: Weights = {"0.weight": torch.ones(2, 3), "0.bias": torch.ones(2), "2.weight": torch.ones(1, 2)}
FULL = {"0.weight": torch.ones(2, 3, dtype=torch.bool), "2.weight": torch.ones(1, 2, dtype=torch.bool)}
BAD_MASKS: list[tuple[Any, str]] = [
    ({"0.weight": FULL["0.weight"]}, "the mask lacks 2.weight; it has: 0.weight"),
    ({}, "the mask lacks 0.weight; it has: —"),
    (FULL | {"0.bias": torch.ones(2, dtype=torch.bool)}, "0.bias, which is no prunable weight; allowed: 0.weight, 2.w"),
    (FULL | {"0.weight": torch.ones(3, 2, dtype=torch.bool)}, r"0.weight has shape \(3, 2\), not \(2, 3\)"),
    (FULL | {"0.weight": torch.ones(2, 3)}, "0.weight holds torch.float32; allowed: torch.bool"),
]


@pytest.mark.parametrize(("mask", "message"), BAD_MASKS)
def test_masks_of_other_weights_are_refused(mask: Any, message: str) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: magnitude_mask(W, 0.5, mask=mask),
        lambda: random_mask(W, 0.5, mask=mask, generator=torch_generator(0, "mask")),
        lambda: masked(W, mask),
        lambda: regrown(W, mask),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


def test_the_order_of_a_mask_does_not_matter() -> None:
    weights = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([[1.0, 0.0]])}
    swapped = {name: torch.ones(1, 2, dtype=torch.bool) for name in ("b", "a")}
    assert equal(magnitude_mask(weights, 0.5, mask=swapped), magnitude_mask(weights, 0.5))


@pytest.mark.parametrize(
    ("fraction", "options", "message"),
    [
        (1.5, {}, "fraction=1.5 .*allowed: 0 to 1"),
        (-0.1, {"scope": "layer"}, "fraction=-0.1"),
        (float("nan"), {"scope": "global"}, "fraction=nan"),
        ({"rest": 2.0}, {"scope": "layer"}, r'fraction\["rest"\]=2.0'),
        ({"3.weight": 0.1}, {"scope": "layer"}, "nearest match: 2.weight"),
        ({"rest": 0.1}, {"scope": "global"}, 'scope="global" needs one fraction, not one per tensor.*scope="layer"'),
        (0.5, {"scope": "globall"}, 'scope="globall" does not exist; allowed: .*nearest match: global'),
    ],
)
def test_unfit_fractions_and_scopes_are_refused(fraction: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        magnitude_mask(W, fraction, **options)
    with pytest.raises(ValueError, match=message):
        random_mask(W, fraction, generator=torch_generator(0, "mask"), **options)


def test_magnitudes_have_no_erdos_renyi_scope() -> None:
    scope: Any = "erdos_renyi"
    with pytest.raises(ValueError, match="allowed: global, layer$"):
        magnitude_mask(W, 0.5, scope=scope)


@pytest.mark.parametrize(
    ("fraction", "mask", "message"),
    [(0.5, FULL, "starts from all weights; leave out the mask"), ({"rest": 0.5}, None, "needs one fraction")],
)
def test_erdos_renyi_takes_one_fraction_of_all_weights(fraction: Any, mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        random_mask(W, fraction, mask=mask, scope="erdos_renyi", generator=torch_generator(0, "mask"))


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_nan_is_named(scope: Any) -> None:
    weights = W | {"2.weight": torch.tensor([[1.0, float("nan")]])}
    with pytest.raises(ValueError, match="2.weight holds NaN"):
        magnitude_mask(weights, 0.0, scope=scope)
