"""Small networks in float32 with their data, and their curvature as a dense matrix in float64."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Batch
from overparam.measure.products.operators import Curvature, CurvatureOperator, dense
from overparam.models.build import build
from overparam.models.losses import LossName
from overparam.specs.models.mlp import MLP

F64 = torch.float64


def exact(model: nn.Module, loss: Any, data: Batch, curvature: Curvature = "hessian") -> Tensor:
    """All eigenvalues in float64, ascending."""
    with opened(model, loss, data, dtype=F64) as problem:
        found: Tensor = torch.linalg.eigvalsh(dense(CurvatureOperator(problem, curvature)))
        return found


def small_mlp(activation: Any = "relu") -> nn.Module:
    return build(MLP(width=24, depth=3, activation=activation), (10,), 4, generator=torch_generator(0, "init"))


def small_cnn() -> nn.Module:
    generator = torch_generator(0, "cnn")
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 4))
    with torch.no_grad():
        for value in model.parameters():
            scale = value[0].numel() ** -0.5 if value.ndim > 1 else 0.3
            value.copy_((value.ndim == 1) * 0.5 + scale * torch.randn(value.shape, generator=generator))
        for _ in range(5):
            model(torch.randn(64, 1, 8, 8, generator=generator))
    return model


def examples(*shape: int, count: int = 60, classes: int = 4) -> Batch:
    generator = torch_generator(1, "data")
    x = torch.randn(count, *shape, generator=generator)
    return x, torch.randint(0, classes, (count,), generator=generator)


@functools.cache
def known_matrix(activation: Any, loss: LossName, curvature: Curvature = "hessian") -> Tensor:
    """The float64 curvature of `small_mlp` on its examples."""
    with opened(small_mlp(activation), loss, examples(10), dtype=F64) as problem:
        return dense(CurvatureOperator(problem, curvature))


SMALL: dict[str, tuple[Callable[[], nn.Module], Batch]] = {
    "mlp": (small_mlp, examples(10)),
    "cnn": (small_cnn, examples(1, 8, 8)),
}
