"""Layers as values: what each makes of the shape of one example, which weights it has, and what it costs.

A model lists its layers once. Its module, the names and shapes of its weights, its FLOPs, its size on disk and its
memory format follow from that list.
"""

import math
from dataclasses import dataclass
from typing import Literal

Shape = tuple[int, ...]
Activation = Literal["relu", "tanh", "erf", "gelu"]
KERNEL = 3  # of every convolution, along each axis


@dataclass(frozen=True)
class Layer:
    """What most layers are: they keep the shape, have no weights and cost next to nothing."""

    def after(self, shape: Shape) -> Shape:
        """Shape of one example behind the layer."""
        return shape

    @property
    def weight(self) -> Shape | None:
        """Shape of the weight that can be pruned: that of linear layers and convolutions."""
        return None

    @property
    def num_parameters(self) -> int:
        return 0

    def flops(self, shape: Shape) -> int:
        """FLOPs of one example of that shape, a multiply–add as two."""
        return 0


@dataclass(frozen=True)
class Flatten(Layer):
    """All axes of an example become one."""

    def after(self, shape: Shape) -> Shape:
        return (math.prod(shape),)


@dataclass(frozen=True)
class AddChannel(Layer):
    """A signal (L,) becomes one of a single channel, (1, L)."""

    def after(self, shape: Shape) -> Shape:
        return (1, *shape)


@dataclass(frozen=True)
class Nonlinearity(Layer):
    """An activation, applied to each number."""

    name: Activation


@dataclass(frozen=True)
class Linear(Layer):
    """`W x + b`; with `ntk` weights of variance 1 that are multiplied by √(2/fan_in) in the forward pass.

    >>> layer = Linear(784, 300)
    >>> layer.weight, layer.num_parameters, layer.flops((784,))
    ((300, 784), 235500, 470400)
    """

    fan_in: int
    fan_out: int
    bias: bool = True
    ntk: bool = False

    def after(self, shape: Shape) -> Shape:
        return (*shape[:-1], self.fan_out)

    @property
    def weight(self) -> Shape:
        return (self.fan_out, self.fan_in)

    @property
    def num_parameters(self) -> int:
        return self.fan_out * (self.fan_in + self.bias)

    def flops(self, shape: Shape) -> int:
        return 2 * self.fan_in * self.fan_out


@dataclass(frozen=True)
class Convolution(Layer):
    """3 taps along each of `axes`, padded so that sizes stay, with biases.

    >>> Convolution(3, 8, axes=2).flops((3, 32, 32))  # 2 · 8 · 3 · 3² · 32²
    442368
    """

    channels_in: int
    channels_out: int
    axes: int

    def after(self, shape: Shape) -> Shape:
        return (self.channels_out, *shape[1:])

    @property
    def weight(self) -> Shape:
        return (self.channels_out, self.channels_in, *(KERNEL,) * self.axes)

    @property
    def num_parameters(self) -> int:
        return math.prod(self.weight) + self.channels_out

    def flops(self, shape: Shape) -> int:
        return 2 * math.prod(self.weight) * math.prod(shape[1:])


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalization with a scale and a shift for each channel."""

    channels: int
    axes: int

    @property
    def num_parameters(self) -> int:
        return 2 * self.channels


@dataclass(frozen=True)
class MaxPool(Layer):
    """The largest of each two neighbours along every axis; an odd one at the end is dropped."""

    axes: int

    def after(self, shape: Shape) -> Shape:
        return (shape[0], *(size // 2 for size in shape[1:]))
