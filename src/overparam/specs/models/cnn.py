"""Convolutional networks: three blocks of two convolutions, then two linear layers."""

import math
from typing import Literal

from overparam.specs.fields import Count
from overparam.specs.models.layers import (
    Activation,
    AddChannel,
    BatchNorm,
    Convolution,
    Flatten,
    Layer,
    Linear,
    MaxPool,
    Nonlinearity,
    Shape,
)
from overparam.specs.models.model import ModelSpec

HIDDEN = 256  # units between the last block and the logits
SMALLEST = 8  # along each axis of an input: it is halved three times


class CNN(ModelSpec):
    """Three blocks of two 3×3 convolutions with channels c, 2c, 4c, then 256 hidden units."""

    kind: Literal["cnn"] = "cnn"
    channels: Count
    batch_norm: bool = True
    activation: Activation = "relu"

    def layers(self, input_shape: Shape, num_classes: int) -> list[Layer]:
        """(convolution – batch norm – activation)×2 and 2× max-pooling, three times; then the linear layers.

        Images (C, H, W) use two-dimensional convolutions, signals (L,) one-dimensional ones. Spatial sizes halve,
        rounded down.
        """
        channels, spatial = channels_and_spatial(input_shape)
        axes = len(spatial)
        layers: list[Layer] = [AddChannel()] if axes == 1 else []
        for wide in (self.channels, 2 * self.channels, 4 * self.channels):
            layers += [*self._convolved(channels, wide, axes), *self._convolved(wide, wide, axes), MaxPool(axes)]
            channels, spatial = wide, tuple(size // 2 for size in spatial)
        hidden = Linear(channels * math.prod(spatial), HIDDEN)
        return [*layers, Flatten(), hidden, Nonlinearity(self.activation), Linear(HIDDEN, num_classes)]

    def _convolved(self, channels_in: int, channels_out: int, axes: int) -> list[Layer]:
        norm = [BatchNorm(channels_out, axes)] if self.batch_norm else []
        return [Convolution(channels_in, channels_out, axes), *norm, Nonlinearity(self.activation)]


def channels_and_spatial(input_shape: Shape) -> tuple[int, Shape]:
    """Channels and spatial sizes of what a CNN reads: images (C, H, W), or signals (L,) of one channel.

    Raises:
        ValueError: the input is smaller than 8 along a spatial axis, so that nothing is left after pooling.

    >>> channels_and_spatial((3, 32, 32)), channels_and_spatial((40,))
    ((3, (32, 32)), (1, (40,)))
    """
    channels, *spatial = input_shape if len(input_shape) == 3 else (1, *input_shape)
    if len(input_shape) not in (1, 3) or min(spatial) < SMALLEST:
        raise ValueError(f"CNN needs inputs (L,) or (C, H, W) of at least 8 per axis, got shape {input_shape}")
    return channels, tuple(spatial)
