"""Arithmetic on a network's layers: shapes of its weights, and how many of them pruning leaves. No tensors.

Only weight tensors of at least two axes are pruned: those of linear layers and convolutions, never biases or
batch norm.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import assert_never

from overparam.specs.explain import nearest
from overparam.specs.run import CNN, MLP

HIDDEN = 256  # units of a CNN between its last block and the logits

Shape = tuple[int, ...]


def weight_shapes(model: MLP | CNN, input_shape: Shape, num_classes: int) -> dict[str, Shape]:
    """Names and shapes of the weights that can be pruned, in the order of the network's parameters.

    Raises:
        ValueError: the inputs are too small for a CNN.

    >>> weight_shapes(MLP(width=(300, 100)), (1, 28, 28), 10)
    {'1.weight': (300, 784), '3.weight': (100, 300), '5.weight': (10, 100)}
    """
    match model:
        case MLP():
            sizes = (math.prod(input_shape), *model.widths, num_classes)
            # Flatten comes first, and an activation between each two layers.
            return {f"{2 * i + 1}.weight": (fan_out, fan_in) for i, (fan_in, fan_out) in enumerate(pairwise(sizes))}
        case CNN():
            return _cnn_shapes(model, input_shape, num_classes)
        case _:
            assert_never(model)


def _cnn_shapes(model: CNN, input_shape: Shape, num_classes: int) -> dict[str, Shape]:
    fan_in, spatial = channels_and_spatial(input_shape)
    kernel = (3,) * len(spatial)
    shapes: dict[str, Shape] = {}
    position = 1 if len(spatial) == 1 else 0  # signals get their channel first
    for channels in (model.channels, 2 * model.channels, 4 * model.channels):
        for _ in range(2):
            shapes[f"{position}.weight"] = (channels, fan_in, *kernel)
            fan_in = channels
            position += 3 if model.batch_norm else 2
        position += 1  # pooling
        spatial = tuple(size // 2 for size in spatial)
    shapes[f"{position + 1}.weight"] = (HIDDEN, fan_in * math.prod(spatial))
    shapes[f"{position + 3}.weight"] = (num_classes, HIDDEN)
    return shapes


def count_parameters(model: MLP | CNN, input_shape: Shape, num_classes: int) -> int:
    """Trainable parameters: weights, biases, and two per channel of batch norm.

    Raises:
        ValueError: the inputs are too small for a CNN.

    >>> count_parameters(MLP(width=(300, 100)), (1, 28, 28), 10)
    266610
    """
    biases = isinstance(model, CNN) or model.bias
    normed = isinstance(model, CNN) and model.batch_norm
    shapes = weight_shapes(model, input_shape, num_classes).values()
    return sum(math.prod(shape) + shape[0] * (biases + 2 * (normed and len(shape) > 2)) for shape in shapes)


def forward_flops(model: MLP | CNN, input_shape: Shape, num_classes: int) -> int:
    """FLOPs of one example's forward pass in linear layers and convolutions, a multiply–add as two.

    Raises:
        ValueError: the inputs are too small for a CNN.

    >>> forward_flops(MLP(width=(300, 100)), (1, 28, 28), 10)
    532400
    """
    spatial = channels_and_spatial(input_shape)[1] if isinstance(model, CNN) else ()
    total = 0
    for layer, shape in enumerate(weight_shapes(model, input_shape, num_classes).values()):
        # Two convolutions at each resolution; linear layers are used once.
        positions = math.prod(size >> layer // 2 for size in spatial) if len(shape) > 2 else 1
        total += 2 * math.prod(shape) * positions
    return total


def channels_and_spatial(input_shape: Shape) -> tuple[int, Shape]:
    """Channels and spatial sizes of what a CNN reads: images (C, H, W), or signals (L,) of one channel.

    Raises:
        ValueError: the input is smaller than 8 along a spatial axis, so that nothing is left after pooling.

    >>> channels_and_spatial((3, 32, 32)), channels_and_spatial((40,))
    ((3, (32, 32)), (1, (40,)))
    """
    channels, *spatial = input_shape if len(input_shape) == 3 else (1, *input_shape)
    if len(input_shape) not in (1, 3) or min(spatial) < 8:
        raise ValueError(f"CNN needs inputs (L,) or (C, H, W) of at least 8 per axis, got shape {input_shape}")
    return channels, tuple(spatial)


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
