"""Symmetric matrices with chosen eigenvalues, and their eigenvalues by way of a network's loss."""

from typing import Any

import torch
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.spectrum.eigenvalues import Eigenvalues, top_eigenvalues

F64 = torch.float64


def rotated(values: Tensor, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    """A symmetric matrix with these eigenvalues in a random basis."""
    square = torch.randn(len(values), len(values), generator=torch_generator(seed, "basis"), dtype=F64)
    q = torch.linalg.qr(square)[0]
    matrix: Tensor = (q * values.double()) @ q.T
    return ((matrix + matrix.T) / 2).to(dtype)


class Form(nn.Module):
    """Any symmetric matrix A as the Hessian of a loss: ½θᵀAθ, the same for every example."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(len(matrix), dtype=matrix.dtype))
        self.matrix = matrix

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.theta.expand(len(x), -1)
        return out

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        found: Tensor = 0.5 * ((outputs @ self.matrix) * outputs).sum(1)
        return found


def of_matrix(matrix: Tensor, k: int = 1, **options: Any) -> Eigenvalues:
    form = Form(matrix)
    return top_eigenvalues(form, form.loss, (torch.zeros(1, 1), torch.zeros(1)), k, **options)


def ends(spectrum: Tensor, k: int) -> Tensor:
    """Rows: the k largest and the k smallest, each descending."""
    return torch.stack([spectrum.flip(0)[:k], spectrum[:k].flip(0)])


def saddle(size: int = 40) -> Tensor:
    """λmin = −5 is larger in size than λmax = 2."""
    return rotated(torch.cat([torch.tensor([-5.0, 2.0]), torch.linspace(-1.0, 1.0, size - 2)]))
