"""What masks keep: how much of each layer, how much of each other, and which units they cut off."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from overparam.models.masks import Mask


@dataclass(frozen=True)
class Overlap:
    """Weights that two masks both keep, and what chance would give: see `mask_overlap`.

    `stderr` is the standard deviation of `shared` by chance, `z = (shared − expected)/stderr`,
    `excess = shared/expected` and `jaccard` the share of the weights kept by either that both keep.
    """

    shared: int
    expected: float
    stderr: float
    z: float
    excess: float
    jaccard: float


@dataclass(frozen=True)
class DeadUnits:
    """Output units with no incoming weight kept, and input units with no outgoing weight kept, of one layer."""

    outputs: int
    inputs: int


def density_profile(mask: Mask) -> dict[str, float]:
    """Share of the weights that each layer keeps, `k_l/n_l`.

    Raises:
        ValueError: there are no layers, or one is empty or not bool.

    >>> density_profile({"w": torch.tensor([[True, False], [False, False]])})
    {'w': 0.25}
    """
    _refuse(mask, "mask")
    return {name: _count(kept) / kept.numel() for name, kept in mask.items()}


def mask_overlap(a: Mask, b: Mask) -> Overlap:
    """Weights that both masks keep, against layers whose kept positions are drawn uniformly, given their counts.

    `shared = Σ_l |a_l ∧ b_l|`. By chance, with layers independent, each term is hypergeometric: of the n_l weights a
    keeps k_a and b keeps k_b, so the mean is `k_a k_b/n_l` and the variance
    `k_a (k_b/n_l)(1 − k_b/n_l)(n_l − k_a)/(n_l − 1)`. Layers of one weight, and those that a mask keeps entirely or not
    at all, leave nothing to chance: variance 0. If all are such, shared is what is expected and z is 0. Where nothing
    is expected, nothing is shared, and excess is 1; masks that are both empty are the same, and jaccard is 1.

    The counts of the layers are part of the null: masks that agree in their densities alone have z near 0.

    Raises:
        ValueError: names or shapes differ, there are no layers, or one is empty or not bool.

    >>> kept = {"w": torch.tensor([True, True, False, False])}
    >>> found = mask_overlap(kept, kept)  # mean 2·2/4, variance 2·½·½·2/3 = 1/3
    >>> found.shared, found.expected, round(found.z, 4), found.excess, found.jaccard
    (2, 1.0, 1.7321, 2.0, 1.0)
    """
    _refuse(a, "a")
    _refuse(b, "b")
    _refuse_different(a, b)
    counts = [(_count(kept), _count(b[name]), kept.numel()) for name, kept in a.items()]
    shared = sum(_count(kept.cpu() & b[name].cpu()) for name, kept in a.items())
    expected = math.fsum(k_a * k_b / n for k_a, k_b, n in counts)
    deviation = math.sqrt(math.fsum(_variance(*each) for each in counts))
    either = sum(k_a + k_b for k_a, k_b, _ in counts) - shared
    return Overlap(
        shared,
        expected,
        deviation,
        z=(shared - expected) / deviation if deviation > 0.0 else 0.0,
        excess=shared / expected if expected > 0.0 else 1.0,
        jaccard=shared / either if either > 0 else 1.0,
    )


def expected_by_inputs(a: Mask, b: Mask) -> float:
    """Weights that both masks would keep if the output units of one were renamed at random: inputs keep their counts.

    `Σ_l Σ_j c_a(j) c_b(j)/n_l`, where c(j) counts the kept weights of input j and n_l are the output units, for weights
    of shape (outputs, inputs, …); every place in a kernel is an input of its own. Hidden units of two trainings do not
    correspond, so masks that agree in their inputs alone share as many. Classes do: in a last layer, masks may share
    more for agreeing in its outputs.

    Raises:
        ValueError: as `mask_overlap`.

    >>> kept = {"w": torch.tensor([[True, False], [True, False]])}  # both outputs read the first input
    >>> mask_overlap(kept, kept).expected, expected_by_inputs(kept, kept)
    (1.0, 2.0)
    """
    _refuse(a, "a")
    _refuse(b, "b")
    _refuse_different(a, b)
    return math.fsum(
        float((kept.sum(0, dtype=torch.float64).cpu() * b[name].sum(0, dtype=torch.float64).cpu()).sum()) / len(kept)
        for name, kept in a.items()
    )


def dead_units(mask: Mask) -> dict[str, DeadUnits]:
    """Units that a layer's mask cuts off, for weights of shape (outputs, inputs, …) as in Linear and Conv.

    An output is dead if its row `mask[i]` keeps nothing: it is constant, its bias. An input is dead if `mask[:, j]`
    keeps nothing: this layer ignores it. Grouped convolutions have the inputs of one group in the second dimension: j
    is then dead if no group uses its j-th.

    Raises:
        ValueError: a layer has fewer than two dimensions, there are no layers, or one is empty or not bool.

    >>> dead_units({"w": torch.tensor([[True, False, False], [False, False, False]])})
    {'w': DeadUnits(outputs=1, inputs=2)}
    """
    _refuse(mask, "mask")
    for name, kept in mask.items():
        if kept.ndim < 2:
            raise ValueError(f"{name} of mask has shape {tuple(kept.shape)}; allowed: (outputs, inputs, …)")
    return {name: DeadUnits(_count(~_used(kept)), _count(~_used(kept.transpose(0, 1)))) for name, kept in mask.items()}


def _count(kept: Tensor) -> int:
    return int(kept.sum())


def _used(kept: Tensor) -> Tensor:
    return kept.flatten(1).any(1)


def _variance(k_a: int, k_b: int, n: int) -> float:
    """Of the hypergeometric distribution; exact integers until the division, so that 0 is 0."""
    return k_a * k_b * (n - k_a) * (n - k_b) / (n * n * (n - 1)) if n > 1 else 0.0


def _refuse(mask: Mask, which: str) -> None:
    if not mask:
        raise ValueError(f"{which} has no layers; give a mapping from names to bool tensors")
    for name, kept in mask.items():
        if kept.dtype != torch.bool:
            raise ValueError(f"{name} of {which} is {kept.dtype}; allowed: torch.bool, true where a weight is kept")
        if kept.numel() == 0:
            raise ValueError(f"{name} of {which} has shape {tuple(kept.shape)}; allowed: at least one weight")


def _refuse_different(a: Mask, b: Mask) -> None:
    if only := sorted(a.keys() ^ b.keys()):
        raise ValueError(f"only one of a and b has {', '.join(only)}; allowed: masks of the same layers")
    for name, kept in a.items():
        if kept.shape != b[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(kept.shape)} in a and {tuple(b[name].shape)} in b; allowed: the same shape"
            )
