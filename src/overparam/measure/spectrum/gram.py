"""Gauss–Newton by its Gram matrix: with fewer outputs N·C than parameters the small matrix has the whole spectrum.

`GGN = MᵀM/N` with the N·C rows `M_i = R_iᵀ J_i` and `S_i = R_i R_iᵀ`; its non-zero eigenvalues are those of `M Mᵀ/N`.
For mse R = 1 and `M Mᵀ` is the empirical neural tangent kernel. For softmax `R = diag(√p) − p √pᵀ`.

Jacobians of all examples at once are trusted where a random combination of their rows is the gradient that autograd
gives of the same combination of outputs; else they are had one row after the other.
"""

import warnings
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.problem import Batch, Problem
from overparam.measure.products.operators import NOT_FINITE, Curvature

MAX_ROWS = 1024
RANK = 1e-6  # of the largest eigenvalue: below it an eigenvalue of the Gram matrix counts as rounding
MAX_BYTES = 2**30
EXAMPLES = 16  # whose rows are computed at a time, so that the slopes of their activations take little memory
MATRICES = 3  # of the size of the rows that `gram_pairs` holds at once, in float64: rows, vectors, their residuals


def gram_pays(problem: Problem, curvature: Curvature, num_outputs: int) -> bool:
    """Whether the Gram matrix is small enough to be the better way: fewer rows than parameters, and in memory."""
    if curvature == "hessian" or not isinstance(problem.loss, str):
        return False
    rows = problem.num_examples * (1 if curvature == "empirical_fisher" else num_outputs)
    # While rows are built their parts are joined, in the model's own precision: two of the size, never more than three.
    bytes_needed = MATRICES * rows * problem.num_parameters * torch.float64.itemsize
    return rows < problem.num_parameters and rows <= MAX_ROWS and bytes_needed <= MAX_BYTES


def gram_rows(problem: Problem, curvature: Curvature) -> Tensor:
    """`M/√N`, shape (N·C, P), or (N, P) for the empirical Fisher."""
    rows = torch.cat([_chunk_rows(problem, curvature, chunk) for chunk in problem.chunks])
    return rows.div_(problem.num_examples**0.5)


def gram_pairs(problem: Problem, curvature: Curvature, k: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """The k largest eigenvalues (k,), descending, their unit vectors (k, P) and residuals (k,).

    Values and residuals are float64 on the CPU, the vectors of the dtype and on the device of the parameters.
    `None` if the rows cannot be had, or if the matrix has fewer than k eigenvalues above rounding: its Gram matrix does
    not know vectors of the rest.
    """
    try:
        rows = gram_rows(problem, curvature).cpu().double()
    except (RuntimeError, NotImplementedError, ValueError):
        return None
    if not bool(rows.sum().isfinite()):
        raise ValueError(NOT_FINITE)
    values, left = torch.linalg.eigh(rows @ rows.T)
    values, left = values.flip(0)[:k], left.flip(1)[:, :k]
    if len(values) < k or not bool(values[-1] > RANK * values[0]):
        return None
    vectors = left.T @ rows
    vectors /= torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    apart = (vectors @ rows.T) @ rows
    apart.addcmul_(values.unsqueeze(1), vectors, value=-1.0)
    residuals = torch.linalg.vector_norm(apart, dim=1)
    del apart
    theta = problem.theta
    rounding = 8.0 * float(torch.finfo(theta.dtype).eps) * len(rows) ** 0.5 * float(values[0])
    return values, vectors.to(theta.dtype).to(theta.device), residuals.clamp_min(rounding)


def _chunk_rows(problem: Problem, curvature: Curvature, chunk: Batch) -> Tensor:
    jacobians = _jacobians(problem, chunk, of_losses=curvature == "empirical_fisher")
    if curvature == "empirical_fisher" or problem.loss == "mse":
        return jacobians.flatten(0, 1)
    roots = softmax_root(problem.values(chunk[0])).to(jacobians)  # outputs may be in another precision
    rows: Tensor = roots.mT @ jacobians
    return rows.flatten(0, 1)


def softmax_root(outputs: Tensor) -> Tensor:
    """`R = diag(√p) − p √pᵀ` (n, C, C), so that `R Rᵀ = diag(p) − p pᵀ`.

    `1 − p_i` on the diagonal is the sum of the other probabilities, which keeps its digits when p_i is nearly 1.
    """
    p = F.softmax(outputs, dim=1)
    root = -p.unsqueeze(2) * p.sqrt().unsqueeze(1)
    others = torch.stack([p[:, [j for j in range(p.shape[1]) if j != i]].sum(1) for i in range(p.shape[1])], dim=1)
    return root.diagonal_scatter(p.sqrt() * others, dim1=1, dim2=2)


def _jacobians(problem: Problem, chunk: Batch, *, of_losses: bool) -> Tensor:
    """`∂f(x_i)/∂θ`, shape (n, C, P), or of the losses, shape (n, 1, P); one row of the batch after the other."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # slow batching rules, which are still right
            found = _vectorized(problem, chunk, of_losses)
        if _combines(problem, chunk, found, of_losses):
            return found
    except (RuntimeError, NotImplementedError, IndexError, ValueError):  # what vmap cannot do has no narrower name
        pass
    found = torch.stack([torch.stack([*each]) for each in _row_by_row(problem, chunk, of_losses)])
    if not _combines(problem, chunk, found, of_losses):
        raise RuntimeError("rows of single examples are no part of the gradient of many")
    return found


def _vectorized(problem: Problem, chunk: Batch, of_losses: bool) -> Tensor:
    x, y = chunk
    parts = problem.layout.split(problem.theta)

    def one(theta: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return _values(problem, theta, (x.unsqueeze(0), y.unsqueeze(0)), of_losses)[0]

    found = torch.func.vmap(torch.func.jacrev(one), in_dims=(None, 0, 0), chunk_size=EXAMPLES)(parts, x, y)
    return torch.cat([found[name].flatten(2) for name in problem.layout.names], dim=2)


def _values(problem: Problem, theta: dict[str, Tensor], chunk: Batch, of_losses: bool) -> Tensor:
    """Outputs (n, C), or losses (n, 1)."""
    outputs = problem.outputs(theta, chunk[0])
    return problem.losses(outputs, chunk[1]).unsqueeze(1) if of_losses else outputs


def _combines(problem: Problem, chunk: Batch, jacobians: Tensor, of_losses: bool) -> bool:
    """Whether plain autograd over all the examples of the chunk gives what the rows add up to."""
    leaves = problem.leaves()
    values = _values(problem, leaves, chunk, of_losses)
    generator = torch_generator(0, "checked")
    weights = torch.randn(values.shape, generator=generator, dtype=torch.float64, device="cpu").to(values)
    if not values.requires_grad:
        return not bool(jacobians.any())
    parts = torch.autograd.grad((values * weights).sum(), tuple(leaves.values()), materialize_grads=True)
    plain = problem.layout.join(parts)
    apart = torch.linalg.vector_norm(weights.flatten().to(plain) @ jacobians.flatten(0, 1) - plain)
    eps = max(problem.eps, torch.finfo(plain.dtype).eps)
    return bool(apart <= eps**0.6 * torch.linalg.vector_norm(plain))


def _row_by_row(problem: Problem, chunk: Batch, of_losses: bool) -> Iterator[Iterator[Tensor]]:
    """The rows (P,) of each example, by plain autograd on it alone."""
    leaves = problem.leaves()
    for x, y in zip(torch.split(chunk[0], 1), torch.split(chunk[1], 1), strict=True):
        yield (_row(problem, leaves, value) for value in _values(problem, leaves, (x, y), of_losses)[0])


def _row(problem: Problem, leaves: dict[str, Tensor], value: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(problem.theta)
    parts = torch.autograd.grad(value, tuple(leaves.values()), retain_graph=True, materialize_grads=True)
    return problem.layout.join(parts)
