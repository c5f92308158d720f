"""Convolutional networks."""

from typing import Literal

from overparam.identity import Spec
from overparam.specs.fields import Activation, Count


class CNN(Spec):
    """Three blocks of two 3×3 convolutions with channels c, 2c, 4c, then 256 hidden units."""

    kind: Literal["cnn"] = "cnn"
    channels: Count
    batch_norm: bool = True
    activation: Activation = "relu"
