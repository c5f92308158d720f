"""Fully connected networks."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

from pydantic import model_validator

from overparam.specs.fields import Count
from overparam.specs.models.layers import Activation, Flatten, Layer, Linear, Nonlinearity, Shape
from overparam.specs.models.model import ModelSpec


class MLP(ModelSpec):
    """Fully connected network. `depth` counts linear layers; a tuple of widths implies its own depth.

    `parameterization="ntk"` draws weights from N(0, 1) and multiplies them by √2/√fan_in in the forward pass;
    `"standard"` is PyTorch's default initialization.
    """

    kind: Literal["mlp"] = "mlp"
    width: Count | tuple[Count, ...]
    depth: Count = 4
    activation: Activation = "relu"
    parameterization: Literal["standard", "ntk"] = "standard"
    bias: bool = True

    @model_validator(mode="before")
    @classmethod
    def _depth_of_tuple(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("width"), (tuple, list)):
            implied = len(values["width"]) + 1
            if values.get("depth", implied) != implied:
                raise ValueError(f"depth={values['depth']} but {implied - 1} widths make depth {implied}; omit depth")
            return {**values, "depth": implied}
        return values

    @property
    def widths(self) -> tuple[int, ...]:
        """Hidden widths, one per hidden layer."""
        return self.width if isinstance(self.width, tuple) else (self.width,) * (self.depth - 1)

    def layers(self, input_shape: Shape, num_classes: int) -> list[Layer]:
        """Flatten, then `depth` linear layers with an activation between each two."""
        sizes = (math.prod(input_shape), *self.widths, num_classes)
        layers: list[Layer] = [Flatten()]
        for fan_in, fan_out in pairwise(sizes):
            linear = Linear(fan_in, fan_out, bias=self.bias, ntk=self.parameterization == "ntk")
            layers += [linear, Nonlinearity(self.activation)]
        return layers[:-1]
