"""Arithmetic on a network's layers: shapes of its weights, and how many of them pruning leaves. No tensors.

Only weight tensors of at least two axes are pruned: those of linear layers and convolutions, never biases or
batch norm.
"""

import math
from itertools import pairwise
from typing import assert_never

from overparam.specs.models.cnn import CNN
from overparam.specs.models.mlp import MLP

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
