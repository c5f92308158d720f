"""The empirical neural tangent kernel `Θ = J Jᵀ` of a finite network, by layers.

Source: Jacot, Gabriel & Hongler (2018); the contraction of inputs with sensitivities: Novak, Sohl-Dickstein &
Schoenholz (2022).
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from overparam.measure.kernels.layers.contraction import Outputs, fill
from overparam.measure.kernels.layers.footprint import footprint, pieces
from overparam.measure.kernels.layers.planning import differentiated
from overparam.measure.kernels.layers.sensitivities import Network, Unstructured
from overparam.measure.problem.examples import cast
from overparam.models.reach import Unused

MAX_MEMORY = 2**30  # bytes, besides the kernel itself
Route = Literal["structured", "jacobian"]


@dataclass(frozen=True)
class EmpiricalKernel:
    """A kernel and how it was had: `routes` says of each parameter whether its layer's structure was used.

    Both routes are exact. `"jacobian"` is that of parameters which no known layer takes, that are used twice, or whose
    structure failed the check against automatic differentiation.
    """

    values: Tensor
    routes: dict[str, Route] = field(repr=False)


def empirical_ntk(
    model: nn.Module,
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    outputs: Outputs = "full",
    max_memory: int | None = None,
    unused: Unused = "refuse",
) -> Tensor:
    """Empirical neural tangent kernel of a model between two sets of inputs.

    `Θ[i, j, a, b] = Σ_p ∂f_a(x1_i)/∂θ_p · ∂f_b(x2_j)/∂θ_p` over all parameters that require a gradient, in eval mode:
    no factor 1/N and none for the width. `outputs="full"` gives all blocks, (N1, N2, C, C); `"trace"` gives
    `(1/C) Σ_a Θ[i, j, a, a]`, (N1, N2). Without `x2` it is that of x1 with itself, and only half is computed. The full
    kernel is a view: `.permute(0, 2, 1, 3).reshape(N1·C, N2·C)` is its matrix, without a copy.

    `max_memory` bounds the bytes taken besides the kernel, 1 GiB if it is None: examples are taken in chunks, and those
    of `x2` are computed again for each chunk of `x1`.

    Raises:
        ValueError: shapes disagree, an input is not finite, `max_memory` holds not even two examples, or the model
            cannot be measured (see `opened`).

    >>> layer = nn.Linear(2, 1)
    >>> empirical_ntk(layer, torch.tensor([[1.0, 2.0], [3.0, 4.0]]), outputs="trace")  # x·x' + 1
    tensor([[ 6., 12.],
            [12., 26.]])
    """
    return empirical_kernel(model, x1, x2, outputs=outputs, max_memory=max_memory, unused=unused).values


def empirical_kernel(
    model: nn.Module,
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    outputs: Outputs = "full",
    max_memory: int | None = None,
    unused: Unused = "refuse",
) -> EmpiricalKernel:
    """`empirical_ntk`, with the route that each parameter took."""
    _refuse(x1, x2, outputs)
    x1, x2 = x1.detach(), None if x2 is None else x2.detach().to(x1.device)
    bound, values = MAX_MEMORY if max_memory is None else max_memory, None
    with differentiated(model, x1, x2, unused) as network:
        theta = network.problem.theta
        first, second = _like(theta, x1), None if x2 is None else _like(theta, x2)
        while values is None:
            try:
                values = _kernel(network, first, second, outputs, bound)
            except Unstructured as found:
                network = network.without(found.names)
        jacobian = set(network.by_jacobian)
    return EmpiricalKernel(values, {n: "jacobian" if n in jacobian else "structured" for n in network.trainable})


def _like(theta: Tensor, x: Tensor) -> Tensor:
    """Inputs where the weights are and, if they are real numbers, in their precision."""
    return cast(x, theta.dtype).to(theta.device)


def _refuse(x1: Tensor, x2: Tensor | None, outputs: str) -> None:
    if outputs not in get_args(Outputs):
        raise ValueError(f'outputs="{outputs}"; allowed: "full" for all blocks, "trace" for their trace / C')
    for name, x in (("x1", x1), ("x2", x2)):
        if x is None:
            continue
        if not isinstance(x, Tensor):
            raise ValueError(f"{name} is a {type(x).__name__}; give a tensor of inputs (N, …)")
        if x.ndim == 0 or len(x) == 0:
            raise ValueError(f"{name} has shape {tuple(x.shape)}; it must hold at least one example")
        if x.is_floating_point() and not bool(x.isfinite().all()):
            raise ValueError(f"{name} holds {int((~x.isfinite()).sum())} values that are not finite")
    if x2 is not None and x2.shape[1:] != x1.shape[1:]:
        raise ValueError(f"x1 and x2 hold examples of shapes {tuple(x1.shape[1:])} and {tuple(x2.shape[1:])}")


def _kernel(network: Network, x1: Tensor, x2: Tensor | None, outputs: Outputs, max_memory: int) -> Tensor:
    """All rows, a band of pieces at a time: as many as fit."""
    each = network.num_outputs if outputs == "full" else 1
    columns = x1 if x2 is None else x2
    size, held = pieces(footprint(network, outputs), max(len(x1), len(columns)), max_memory)
    matrix = torch.empty(len(x1) * each, len(columns) * each, dtype=network.dtype, device=x1.device)
    for begin in range(0, len(x1), size * held):
        starts = range(begin, min(begin + size * held, len(x1)), size)
        _fill_band(matrix, network, x1, x2, starts, outputs)
    if outputs == "trace":
        return matrix.div_(network.num_outputs)
    return matrix.view(len(x1), each, len(columns), each).permute(0, 2, 1, 3)


def _fill_band(
    matrix: Tensor, network: Network, x1: Tensor, x2: Tensor | None, starts: range, outputs: Outputs
) -> None:
    """Pieces of rows are held, those of columns come and go; a symmetric kernel is copied to below its diagonal."""
    symmetric, columns, size = x2 is None, x1 if x2 is None else x2, starts.step
    each = matrix.shape[0] // len(x1)
    rows = {start: network.factors(x1[start : start + size], outputs) for start in starts}
    for other in range(starts.start if symmetric else 0, len(columns), size):
        known = symmetric and other in rows
        across = rows[other] if known else network.factors(columns[other : other + size], outputs)
        for start in starts:
            if symmetric and start > other:
                continue
            block = _block(matrix, start, other, size, each)
            fill(block, rows[start], across, each, symmetric and start == other)
            if symmetric and start != other:
                _block(matrix, other, start, size, each).copy_(block.T)
        del across  # before the next piece is formed


def _block(matrix: Tensor, row: int, column: int, size: int, each: int) -> Tensor:
    return matrix[row * each : (row + size) * each, column * each : (column + size) * each]
