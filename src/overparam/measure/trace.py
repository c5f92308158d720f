"""Trace and Frobenius norm of a curvature by random probes, at a budget that is fixed beforehand.

Stopping when a running mean looks settled favours lucky starts; here the number of products is given and the interval
is Student's over the independent probes.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from overparam.measure.estimate import Estimate, mean_with_interval
from overparam.measure.operators import Curvature, CurvatureOperator, Operator
from overparam.measure.problem import Data, Loss, opened
from overparam.rng.torch_generators import torch_generator

Method = Literal["hutchpp", "hutchinson"]
ROWS = 8  # probes at a time


def hessian_trace(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    curvature: Curvature = "hessian",
    max_products: int = 100,
    method: Method = "hutchpp",
    params: Sequence[str] | str | None = None,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Trace of a curvature of `L = (1/N) Σ ℓ(f(x_i), y_i)`, with Student's 95 % interval over probes.

    `hutchinson`: the mean of `zᵀCz` over Rademacher probes z; its variance is `2(‖C‖_F² − Σ C_ii²)` per probe.
    `hutchpp` (Meyer et al. 2021): a third of the products finds a subspace Q that holds the large eigenvalues, a third
    measures `tr(QᵀCQ)` exactly, the last third is Hutchinson's estimator outside Q.

    Raises:
        ValueError: `max_products` is too small for an interval, or the model, loss or data cannot be measured.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 3.0]])  # C = XᵀX/N = diag(1/2, 9/2)
    >>> round(hessian_trace(model, "mse", (x, torch.zeros(2, 1))).value, 4)
    5.0
    """
    if method not in ("hutchpp", "hutchinson"):
        raise ValueError(f'unknown method "{method}"; allowed: "hutchpp", "hutchinson"')
    _refuse_few(max_products, 6 if method == "hutchpp" else 2)
    generator = generator or torch_generator(0, "trace")
    with opened(model, loss, data, params=params) as problem:
        estimate = hutchpp if method == "hutchpp" else hutchinson
        return estimate(CurvatureOperator(problem, curvature), max_products, generator)


def hessian_frobenius(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    curvature: Curvature = "hessian",
    max_products: int = 100,
    params: Sequence[str] | str | None = None,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Squared Frobenius norm `‖C‖_F² = tr(C²)`, the sum of the squared eigenvalues: the mean of `‖Cz‖²`.

    Raises:
        ValueError: as for `hessian_trace`.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    >>> round(hessian_frobenius(model, "mse", (x, torch.zeros(2, 1))).value, 4)  # 1/4 + 81/4
    20.5
    """
    _refuse_few(max_products, 2)
    generator = generator or torch_generator(0, "frobenius")
    with opened(model, loss, data, params=params) as problem:
        operator = CurvatureOperator(problem, curvature)
        samples = [float(v.double().square().sum()) for _, v in _probed(operator, max_products, generator)]
        return mean_with_interval(samples, operator.num_products)


def hutchinson(operator: Operator, budget: int, generator: torch.Generator) -> Estimate:
    """Mean of `zᵀAz` over `budget` Rademacher probes."""
    samples = [float(z.double() @ v.double()) for z, v in _probed(operator, budget, generator)]
    return mean_with_interval(samples, operator.num_products)


def hutchpp(operator: Operator, budget: int, generator: torch.Generator) -> Estimate:
    """Hutch++ with `3·⌊budget/3⌋` products, fewer if the matrix is small enough to be measured exactly.

    The sketch has orthonormal rows Q; what is left is `tr(A) − tr(QAQᵀ) = E zᵀ(1 − QᵀQ)A(1 − QᵀQ)z`.
    """
    third = budget // 3
    if 2 * third >= operator.size:
        return _exactly(operator)
    sketch = operator(rademacher(operator, third, generator))
    q = torch.linalg.qr(sketch.T)[0].T.contiguous()
    inside = float((q.double() * operator(q).double()).sum())
    probes = rademacher(operator, third, generator)
    probes = probes - (probes @ q.T) @ q
    samples = (probes.double() * operator(probes).double()).sum(1)
    return mean_with_interval(samples.tolist(), operator.num_products, offset=inside)


def _exactly(operator: Operator) -> Estimate:
    """All diagonal entries by unit vectors."""
    identity = torch.eye(operator.size, dtype=operator.dtype, device=operator.device)
    value = sum(float(operator(row)[i]) for i, row in enumerate(identity))
    return Estimate(value, 0.0, value, value, "ok", operator.num_products)


def rademacher(operator: Operator, count: int, generator: torch.Generator) -> Tensor:
    """Rows (count, P) of independent signs."""
    signs = torch.randint(0, 2, (count, operator.size), generator=generator, dtype=torch.int8)
    return (2 * signs - 1).to(operator.device, operator.dtype)


def _probed(operator: Operator, budget: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Pairs (z, Az), `ROWS` at a time."""
    found: list[tuple[Tensor, Tensor]] = []
    for start in range(0, budget, ROWS):
        z = rademacher(operator, min(ROWS, budget - start), generator)
        found += zip(z, operator(z), strict=True)
    return found


def _refuse_few(max_products: int, least: int) -> None:
    if max_products < least:
        raise ValueError(f"max_products = {max_products}; allowed: at least {least}, so that there is an interval")
