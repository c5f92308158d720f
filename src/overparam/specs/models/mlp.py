"""Fully connected networks."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from overparam.identity import Spec
from overparam.specs.fields import Activation, Count


class MLP(Spec):
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
