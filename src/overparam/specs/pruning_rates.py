"""How many weights pruning takes from each tensor. Whole numbers, no tensors."""

import math
from collections.abc import Mapping, Sequence

from overparam.foundations.words import nearest
from overparam.specs.models.layers import Shape


def pruned_count(fraction: float, remaining: int) -> int:
    """How many of the `remaining` weights one round prunes: `round(fraction · remaining)`, half to even.

    Raises:
        ValueError: the fraction is not in [0, 1].

    >>> pruned_count(0.5, 5), pruned_count(0.5, 7)
    (2, 4)
    """
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"fraction={fraction} of the weights cannot be pruned; allowed: 0 to 1")
    return round(fraction * remaining)


def rates_by_name(names: Sequence[str], fraction: float | Mapping[str, float]) -> dict[str, float]:
    """One pruning rate per tensor, in the order of `names`.

    A number is the rate of all. The keys of a mapping are names of tensors, or of layers (without ".weight"), or the
    words "first", "last" and "rest"; "rest" is what no other key names, and is not pruned if it is missing. A layer
    that is itself called by one of the words is reached by the name of its tensor.

    Raises:
        ValueError: a rate is not in [0, 1], a key names no tensor, or two keys name the same one.

    >>> rates_by_name(["1.weight", "3.weight", "5.weight"], {"rest": 0.2, "last": 0.1})
    {'1.weight': 0.2, '3.weight': 0.2, '5.weight': 0.1}
    """
    if not isinstance(fraction, Mapping):
        return dict.fromkeys(names, fraction)
    words = {"first": names[0], "last": names[-1]} if names else {}
    known = {name.removesuffix(".weight"): name for name in names} | words | {name: name for name in names}
    chosen: dict[str, str] = {}  # tensor → the key that names it
    for key, rate in fraction.items():
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f'fraction["{key}"]={rate} of the weights cannot be pruned; allowed: 0 to 1')
        if key == "rest":
            continue
        name = _known(key, known, names)
        if name in chosen:
            raise ValueError(f'fraction: "{chosen[name]}" and "{key}" both name the tensor {name}; give one of them')
        chosen[name] = key
    rest = fraction.get("rest", 0.0)
    return {name: fraction[chosen[name]] if name in chosen else rest for name in names}


def _known(key: str, known: Mapping[str, str], names: Sequence[str]) -> str:
    if key in known:
        return known[key]
    allowed = [*names, "first", "last", "rest"]
    hint = nearest(key, [*known, "rest"])
    raise ValueError(f'fraction["{key}"]: no such tensor; allowed: {", ".join(allowed)}{hint}')


def erdos_renyi_counts(shapes: Mapping[str, Shape], keep: int) -> dict[str, int]:
    """Weights that each tensor keeps of `keep` in all, by the Erdős–Rényi rule, with kernels for convolutions.

    A layer's density is proportional to `Σ dims / Π dims`, so that its count is proportional to `Σ dims`. Layers whose
    density would reach 1 are kept whole and the others share what is left. Counts are rounded by largest remainder,
    ties to the earlier layer: they sum to `keep` exactly, and none exceeds its layer.

    Source: Mocanu et al. (2018); Evci et al. (2020) for kernels.

    Raises:
        ValueError: `keep` is negative or more than all weights.

    >>> erdos_renyi_counts({"1.weight": (30, 50), "3.weight": (10, 30), "5.weight": (2, 2)}, 184)
    {'1.weight': 120, '3.weight': 60, '5.weight': 4}
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    if not 0 <= keep <= sum(sizes.values()):
        raise ValueError(f"keep={keep} weights is impossible; allowed: 0 to {sum(sizes.values())}")
    shares = {name: sum(shape) for name, shape in shapes.items()}
    whole: set[str] = set()
    while True:
        left = keep - sum(sizes[name] for name in whole)
        free = {name: share for name, share in shares.items() if name not in whole}
        all_shares = sum(free.values())
        # Whole numbers throughout, so that no count depends on rounding of floats.
        filled = {name for name, share in free.items() if left * share >= sizes[name] * all_shares}
        if not filled:
            break
        whole |= filled
    counts = _largest_remainders(free, left)
    return {name: sizes[name] if name in whole else counts[name] for name in shapes}


def _largest_remainders(shares: Mapping[str, int], amount: int) -> dict[str, int]:
    """Whole numbers in proportion to `shares` that sum to `amount`; ties go to the earlier."""
    divided = {name: divmod(amount * share, sum(shares.values())) for name, share in shares.items()}
    counts = {name: quotient for name, (quotient, _) in divided.items()}
    by_remainder = sorted(divided, key=lambda name: -divided[name][1])  # stable
    for name in by_remainder[: amount - sum(counts.values())]:
        counts[name] += 1
    return counts


def unspared(names: Sequence[str], spare: Sequence[str]) -> list[str]:
    """The tensors that are not left out, by the names that `rates_by_name` takes.

    >>> unspared(["1.weight", "3.weight", "5.weight"], ("last",))
    ['1.weight', '3.weight']
    """
    spared = rates_by_name(names, dict.fromkeys(spare, 1.0))
    return [name for name, rate in spared.items() if not rate]
