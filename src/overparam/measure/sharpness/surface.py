"""The loss along a line or over a plane through a model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Data, Loss, Problem
from overparam.measure.sharpness.weight_noise import scaled_direction
from overparam.measure.spectrum.eigenvalues import Eigenvalues, top_eigenvalues
from overparam.models.reach import Unused

Directions = Literal["random", "eigen"] | Tensor
TOLERANCE = 1e-3  # residual of the eigenvectors relative to ‖H‖
DEPENDENT = 1e-3  # share of a direction that is left outside the first, below which there is no plane


@dataclass(frozen=True)
class Surface:
    """Risks at `θ + a_i d_1` or `θ + a_i d_1 + a_j d_2`, with a the `coordinates`; tensors on the CPU.

    `losses` and `accuracies` (NaN where targets are not classes) are float64 of shape (points,) or (points, points),
    first index along the first direction; the middle one is the model itself. `directions` are rows (1 or 2, P) as they
    were walked along. `eigenvalues` is the solve behind eigenvector directions, with its residuals; else `None`.
    """

    coordinates: Tensor
    losses: Tensor
    accuracies: Tensor
    directions: Tensor
    base_loss: float
    eigenvalues: Eigenvalues | None


def loss_surface(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    directions: Directions = "random",
    span: float = 1.0,
    points: int = 21,
    dimensions: int = 2,
    params: Sequence[str] | str | None = None,
    unused: Unused = "refuse",
    generator: torch.Generator | None = None,
) -> Surface:
    """`L(θ + a d_1 + b d_2)` for a, b on a grid of `points` values from −span to span.

    - `random`: Gaussian directions, filter-normalized (Li et al. 2018): coordinate 1 moves each filter by its own norm.
    - `eigen`: the eigenvectors of the largest Hessian eigenvalues, each of norm ‖θ‖, so that coordinate 1 moves the
      weights by their own norm; the second difference in a is then `λ‖θ‖²`.
    - a tensor of rows (dimensions, P): walked along as given, neither scaled nor made orthogonal.

    Otherwise the second direction is made orthogonal to the first (Gram–Schmidt), after filter normalization. In many
    dimensions random directions are nearly orthogonal, and that changes the norms of its filters little.

    Raises:
        ValueError: an argument is out of range, a direction is zero or not finite, both are the same line, or the
            model, loss or data cannot be measured (see `opened`).

    >>> model = nn.Linear(1, 1, bias=False)
    >>> x = torch.ones(1, 1)
    >>> line = loss_surface(
    ...     model, "mse", (x, model(x).detach()), directions=torch.ones(1, 1), points=3, dimensions=1
    ... )
    >>> [round(value, 4) for value in line.losses.tolist()]  # ½a² at a = −1, 0, 1
    [0.5, 0.0, 0.5]
    """
    _refuse(directions, span, points, dimensions, generator)
    generator = generator or torch_generator(0, "surface")
    solve = None
    with opened(model, loss, data, params=params, unused=unused, gradients=False) as problem:
        if isinstance(directions, str) and directions == "eigen":
            data = problem.chunks  # read once, so that eigenvectors and surface are of the same loss
            names = problem.layout.names
            solve = top_eigenvalues(model, loss, data, dimensions, tol=TOLERANCE, params=names, generator=generator)
        rows = _rows(problem, directions, solve, dimensions, generator)
        ticks = torch.arange(-(points // 2), points // 2 + 1, dtype=torch.float64, device="cpu")
        coordinates = span * ticks / (points // 2)
        losses, accuracies = _grid(problem, rows, coordinates.tolist())
        base = problem.risk()[0]
    return Surface(coordinates, losses, accuracies, rows.cpu(), base, solve)


def _refuse(
    directions: Directions, span: float, points: int, dimensions: int, generator: torch.Generator | None
) -> None:
    if isinstance(directions, Tensor):
        if generator is not None:
            raise ValueError("generator: nothing is drawn when the directions are given; leave it out")
    elif directions not in ("random", "eigen"):
        raise ValueError(f'directions = "{directions}"; allowed: "random", "eigen", or a tensor of rows')
    if not (math.isfinite(span) and span > 0.0):
        raise ValueError(f"span = {span}; allowed: a positive number")
    if points < 3 or points % 2 == 0:
        raise ValueError(f"points = {points}; allowed: an odd integer ≥ 3, so that the middle one is the model itself")
    if dimensions not in (1, 2):
        raise ValueError(f"dimensions = {dimensions}; allowed: 1, 2")


def _rows(
    problem: Problem, directions: Directions, solve: Eigenvalues | None, dimensions: int, generator: torch.Generator
) -> Tensor:
    """The directions (dimensions, P), checked."""
    if isinstance(directions, Tensor):
        rows = directions.detach().to(problem.theta)
        if rows.shape != (dimensions, problem.num_parameters):
            raise ValueError(
                f"directions has the shape {tuple(rows.shape)}; allowed with dimensions={dimensions}: "
                f"({dimensions}, {problem.num_parameters})"
            )
        _refuse_degenerate(rows, rows)
        return rows
    if solve is not None:
        if len(solve.vectors) < dimensions:
            raise ValueError(f"{problem.num_parameters} parameter is measured; there is no plane, pass dimensions=1")
        rows = solve.vectors.to(problem.theta) * torch.linalg.vector_norm(problem.theta)
    else:
        rows = torch.stack([scaled_direction(problem, "filter", generator) for _ in range(dimensions)])
    walked = _orthogonal(rows)
    _refuse_degenerate(rows, walked)
    return walked


def _orthogonal(rows: Tensor) -> Tensor:
    """The second row without its part along the first; twice, because rounding leaves some."""
    rows = rows.clone()
    for row in rows[1:]:
        for _ in range(2):
            row -= (row @ rows[0]) / (rows[0] @ rows[0]) * rows[0]
    return rows


def _refuse_degenerate(rows: Tensor, walked: Tensor) -> None:
    norms, left = (torch.linalg.vector_norm(each, dim=1).tolist() for each in (rows, walked))
    for i, (before, after) in enumerate(zip(norms, left, strict=True)):
        if not math.isfinite(before) or before == 0.0:
            raise ValueError(f"direction {i} has the norm {before}; allowed: finite and positive")
        if after < DEPENDENT * before:
            raise ValueError(f"direction {i} lies along the one before it; there is no plane, pass dimensions=1")


def _grid(problem: Problem, rows: Tensor, coordinates: list[float]) -> tuple[Tensor, Tensor]:
    """Losses and accuracies, one dimension of the grid per direction."""
    steps = product(coordinates, repeat=len(rows))
    risks = [problem.risk(problem.theta + rows.new_tensor(step) @ rows) for step in steps]
    found = torch.tensor(risks, dtype=torch.float64, device="cpu").reshape(*[len(coordinates)] * len(rows), 2)
    return found[..., 0], found[..., 1]
