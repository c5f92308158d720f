"""Model spec → freshly initialized module."""

import math
from typing import assert_never

import torch
from torch import nn

from overparam.models.cnn import build_cnn
from overparam.models.mlp import NTKLinear, build_mlp
from overparam.specs.models.cnn import CNN
from overparam.specs.models.mlp import MLP


def build(spec: MLP | CNN, input_shape: tuple[int, ...], num_classes: int, *, generator: torch.Generator) -> nn.Module:
    """Module on the CPU whose weights come from `generator` alone.

    The module is laid out without memory first, so no global random state is read or moved.
    """
    with torch.device("meta"):
        model = _layout(spec, tuple(input_shape), num_classes)
    model.to_empty(device="cpu")
    for module in model.modules():
        _initialize(module, generator)
    return model


def _layout(spec: MLP | CNN, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    match spec:
        case MLP():
            return build_mlp(spec, math.prod(input_shape), num_classes)
        case CNN():
            return build_cnn(spec, input_shape, num_classes)
        case _:
            assert_never(spec)


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
