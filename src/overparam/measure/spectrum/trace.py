"""Trace and squared Frobenius norm of a curvature by random probes, at a budget that is fixed beforehand.

Stopping when a running mean looks settled favours lucky starts; here the number of products is given and the interval
is Student's over the independent probes, widened by what rounding may do.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.estimate import Estimate, mean_with_interval
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Data, Loss
from overparam.measure.products.operators import Curvature, CurvatureOperator, Operator
from overparam.models.reach import Unused

Method = Literal["hutchpp", "hutchinson"]
ROWS = 8  # probes at a time
ROUNDING = 8.0  # machine ε by which a product may err, relative to its norm; up to 2.5 measured at logits of order 1


def hessian_trace(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    curvature: Curvature = "hessian",
    max_products: int = 100,
    method: Method = "hutchpp",
    params: Sequence[str] | str | None = None,
    unused: Unused = "refuse",
    generator: torch.Generator | None = None,
) -> Estimate:
    """Trace of a curvature of `L = (1/N) Σ ℓ(f(x_i), y_i)`, with a 95 % interval: Student's over probes, and rounding.

    `hutchinson`: the mean of `zᵀCz` over Rademacher probes z; its variance is `2(‖C‖_F² − Σ C_ii²)` per probe.
    `hutchpp` (Meyer et al. 2021): a third of the products finds a subspace Q that holds the large eigenvalues, a third
    measures `tr(QᵀCQ)` exactly, the last third is Hutchinson's estimator outside Q. Where two thirds of the products
    are as many as the parameters, all diagonal entries are measured instead.

    A product that errs by at most `8ε‖Cz‖` moves `zᵀCz` by at most `8ε‖z‖‖Cz‖` (Cauchy and Schwarz); the interval is
    wider by the mean of that over probes, or its sum where nothing is drawn. `stderr` is that of the probes alone.
    Logits of several hundred lose more digits than that: pass a model in float64 where rounding matters.

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
    with opened(model, loss, data, params=params, unused=unused) as problem:
        operator = CurvatureOperator(problem, curvature)
        estimate = hutchpp if method == "hutchpp" else hutchinson
        return replace(estimate(operator, max_products, generator), fallback=operator.fallback)


def hessian_frobenius(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    curvature: Curvature = "hessian",
    max_products: int = 100,
    params: Sequence[str] | str | None = None,
    unused: Unused = "refuse",
    generator: torch.Generator | None = None,
) -> Estimate:
    """Squared Frobenius norm `‖C‖_F² = tr(C²)`, not its root: the sum of the squared eigenvalues, mean of `‖Cz‖²`.

    The square is what probes estimate without bias. The interval is as for `hessian_trace`, with rounding `16ε‖Cz‖²`.

    Raises:
        ValueError: as for `hessian_trace`.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    >>> round(hessian_frobenius(model, "mse", (x, torch.zeros(2, 1))).value, 4)  # 1/4 + 81/4
    20.5
    """
    _refuse_few(max_products, 2)
    generator = generator or torch_generator(0, "frobenius")
    with opened(model, loss, data, params=params, unused=unused) as problem:
        operator = CurvatureOperator(problem, curvature)
        pairs = probed(operator, max_products, partial(rademacher, operator, generator=generator))
        samples = torch.cat([v.cpu().double().square().sum(1) for _, v in pairs])
        rounding = 2.0 * _unit(operator) * float(samples.mean())
        found = mean_with_interval(samples.tolist(), operator.num_products, rounding=rounding)
        return replace(found, fallback=operator.fallback)


def hutchinson(operator: Operator, budget: int, generator: torch.Generator) -> Estimate:
    """Mean of `zᵀAz` over `budget` Rademacher probes."""
    return mean_form(operator, budget, partial(rademacher, operator, generator=generator))


def mean_form(operator: Operator, count: int, draw: Callable[[int], Tensor]) -> Estimate:
    """Mean of `zᵀAz` over `count` independent rows z that `draw` gives."""
    samples, rounding = torch.cat([_forms(operator, z, v) for z, v in probed(operator, count, draw)]).T
    return mean_with_interval(samples.tolist(), operator.num_products, rounding=float(rounding.mean()))


def probed(operator: Operator, count: int, draw: Callable[[int], Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks z and Az of at most `ROWS` rows, `count` rows in all, each block drawn when it is asked for."""
    for start in range(0, count, ROWS):
        z = draw(min(ROWS, count - start))
        yield z, operator(z)


def _forms(operator: Operator, z: Tensor, v: Tensor) -> Tensor:
    """`zᵀv` and the rounding `8ε‖z‖‖v‖` of each row: (K, 2), float64 on the CPU."""
    z, v = z.cpu().double(), v.cpu().double()
    sizes = torch.linalg.vector_norm(z, dim=1) * torch.linalg.vector_norm(v, dim=1)
    return torch.stack([(z * v).sum(1), _unit(operator) * sizes], dim=1)


def _unit(operator: Operator) -> float:
    return ROUNDING * float(torch.finfo(operator.dtype).eps)


def hutchpp(operator: Operator, budget: int, generator: torch.Generator) -> Estimate:
    """Hutch++ with `3·⌊budget/3⌋` products, fewer if the matrix is small enough to be measured exactly.

    The sketch has orthonormal rows Q; what is left is `tr(A) − tr(QAQᵀ) = E zᵀ(1 − QᵀQ)A(1 − QᵀQ)z`.
    """
    third = budget // 3
    if 2 * third >= operator.size:
        return _exactly(operator)
    sketch = operator(rademacher(operator, third, generator))
    q = torch.linalg.qr(sketch.T)[0].T.contiguous()
    inside, slack = _forms(operator, q, operator(q)).sum(0).tolist()
    probes = rademacher(operator, third, generator)
    probes = probes - (probes @ q.T) @ q
    samples, rounding = _forms(operator, probes, operator(probes)).T
    slack += float(rounding.mean())
    return mean_with_interval(samples.tolist(), operator.num_products, offset=inside, rounding=slack)


def _exactly(operator: Operator) -> Estimate:
    """All diagonal entries by unit vectors."""
    identity = torch.eye(operator.size, dtype=operator.dtype, device=operator.device)
    value, slack = torch.cat([_forms(operator, e, operator(e)) for e in torch.split(identity, ROWS)]).sum(0).tolist()
    return Estimate(value, 0.0, value - slack, value + slack, "ok", operator.num_products)


def rademacher(operator: Operator, count: int, generator: torch.Generator) -> Tensor:
    """Rows (count, P) of independent signs."""
    signs = torch.randint(0, 2, (count, operator.size), generator=generator, dtype=torch.int8, device="cpu")
    return (2 * signs - 1).to(operator.device, operator.dtype)


def _refuse_few(max_products: int, least: int) -> None:
    if max_products < least:
        raise ValueError(f"max_products = {max_products}; allowed: at least {least}, so that there is an interval")
