"""Model spec → freshly initialized module."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overparam.models.activations import activation
from overparam.specs.models import layers
from overparam.specs.models.model import ModelSpec


class NTKLinear(nn.Linear):
    """Linear layer with unit-variance weights, scaled in the forward pass: √(2/fan_in) · W x + b."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * (2.0 / self.in_features) ** 0.5, self.bias)


class AddChannel(nn.Module):
    """(N, L) → (N, 1, L)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(1)


def build(spec: ModelSpec, input_shape: tuple[int, ...], num_classes: int, *, generator: torch.Generator) -> nn.Module:
    """Module on the CPU whose weights come from `generator` alone.

    The module is laid out without memory first, so no global random state is read or moved.

    Raises:
        ValueError: the network is not defined for inputs of that shape.
    """
    with torch.device("meta"):
        model = nn.Sequential(*map(_module, spec.layers(tuple(input_shape), num_classes)))
    model.float().to_empty(device="cpu")
    for module in model.modules():
        _initialize(module, generator)
    return model


def _module(layer: layers.Layer) -> nn.Module:
    match layer:
        case layers.Flatten():
            return nn.Flatten()
        case layers.AddChannel():
            return AddChannel()
        case layers.Nonlinearity(name=name):
            return activation(name)
        case layers.Linear(fan_in=fan_in, fan_out=fan_out, bias=bias, ntk=ntk):
            return (NTKLinear if ntk else nn.Linear)(fan_in, fan_out, bias=bias)
        case layers.Convolution(channels_in=channels_in, channels_out=channels_out, axes=axes):
            convolution = (nn.Conv1d, nn.Conv2d)[axes - 1]
            return convolution(channels_in, channels_out, kernel_size=layers.KERNEL, padding=layers.KERNEL // 2)
        case layers.BatchNorm(channels=channels, axes=axes):
            return (nn.BatchNorm1d, nn.BatchNorm2d)[axes - 1](channels)
        case layers.MaxPool(axes=axes):
            return (nn.MaxPool1d, nn.MaxPool2d)[axes - 1](2)
        case _:
            raise TypeError(f"no module is known for the layer {type(layer).__name__}")


def _initialize(module: nn.Module, generator: torch.Generator) -> None:
    """PyTorch's default distributions: U(±1/√fan_in) for weights and biases; N(0, 1), 0 in NTK form."""
    match module:
        case NTKLinear():
            nn.init.normal_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        case nn.Linear() | nn.Conv1d() | nn.Conv2d():
            bound = 1.0 / math.sqrt(module.weight[0].numel())
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            if module.bias is not None:
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            module.reset_parameters()
        case _:
            pass
