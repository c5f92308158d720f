"""Small networks and data at no special values, and an operation that can be differentiated only once."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.problem import Batch

F64 = torch.float64


def rows(count: int = 12, inputs: int = 4, classes: int = 3, seed: int = 0) -> Batch:
    generator = torch_generator(seed, "test")
    x = torch.randn(count, inputs, generator=generator, dtype=F64)
    return x, torch.randint(0, classes, (count,), generator=generator)


def images(count: int = 6, channels: int = 2, size: int = 8, classes: int = 3) -> Batch:
    generator = torch_generator(0, "images")
    x = torch.randn(count, channels, size, size, generator=generator, dtype=F64)
    return x, torch.randint(0, classes, (count,), generator=generator)


def shaken(model: nn.Module) -> nn.Module:
    """Weights, scales and running statistics at no special value, float64."""
    generator = torch_generator(0, "shaken")
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                scale = 1.0 if value.ndim < 2 else value[0].numel() ** -0.5
                value.copy_(0.7 * scale * torch.randn(value.shape, generator=generator))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_var is not None:
                module.running_var.abs_().add_(0.5)
    return model.double()


def smooth_mlp() -> nn.Module:
    return shaken(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))


class Net(nn.Module):
    """A body on images, then the mean of each channel and a linear layer."""

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.body(x)).mean((2, 3)))
        return out


def conv_then(*layers: nn.Module, **options: Any) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3, **options), *layers)


def small_cnn() -> nn.Module:
    body = conv_then(nn.BatchNorm2d(3), nn.GELU(), nn.MaxPool2d(2), nn.Conv2d(3, 3, 2, bias=False), nn.BatchNorm2d(3))
    return shaken(Net(body, 3))


class TwoNames(nn.Module):
    """A module that is registered again inside a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.body = nn.Sequential(self.first, nn.Tanh(), self.last)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


class Repeated(nn.Module):
    """One layer three times."""

    def __init__(self) -> None:
        super().__init__()
        self.start, layer, self.end = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.layers = nn.ModuleList([layer] * 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        out: Tensor = self.end(x)
        return out


class OnceTanh(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = torch.tanh(x)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        slope: Tensor = 1 - out * out
        return grad * slope


class Once(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = OnceTanh.apply(x)  # type: ignore[no-untyped-call]
        return out
