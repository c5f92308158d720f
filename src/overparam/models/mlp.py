"""Fully connected network d → w₁ → … → K in standard or NTK parameterization."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from overparam.models.activations import activation
from overparam.specs.models.mlp import MLP


class NTKLinear(nn.Linear):
    """Linear layer with unit-variance weights, scaled in the forward pass: √(2/fan_in) · W x + b."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * (2.0 / self.in_features) ** 0.5, self.bias)


def build_mlp(spec: MLP, num_inputs: int, num_classes: int) -> nn.Module:
    """Flatten, then `depth` linear layers with an activation between them."""
    linear = NTKLinear if spec.parameterization == "ntk" else nn.Linear
    sizes = (num_inputs, *spec.widths, num_classes)
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(sizes):
        layers += [linear(fan_in, fan_out, bias=spec.bias), activation(spec.activation)]
    return nn.Sequential(*layers[:-1])
