"""Extreme eigenvalues of a model's curvature, with residuals and certified intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Data, Loss, Problem
from overparam.measure.products.operators import Curvature, CurvatureOperator, refuse_unknown_curvature
from overparam.measure.spectrum import checkpoint as file
from overparam.measure.spectrum.extremes import CONFIDENCE, MIN_STEPS, Pair, Solve, Which
from overparam.measure.spectrum.gram import gram_pairs, gram_pays
from overparam.measure.spectrum.lanczos import refuse_asymmetric, steps_to_certify
from overparam.measure.spectrum.warm_start import UNIMODAL_FROM, WARM_STEPS, drawn_subset, refuse_subset, warm_vector
from overparam.models.reach import Unused

SAVE_EVERY = 10  # products between two saves of a solve


@dataclass(frozen=True)
class Eigenvalues:
    """Extreme eigenvalues and what is known about their errors; numbers are float64 on the CPU.

    `values` are descending, of shape (k,), or (2, k) for "both": row 0 the largest, row 1 the smallest; a model of
    fewer than k parameters has as many values as parameters. `residuals` are
    `‖Cv − θv‖`: some eigenvalue lies within one residual of each value. `lower` and `upper` are intervals: for λmax and
    λmin the certified one, which holds for both at once with probability `confidence` over the random start; for inner
    values, and for all where products are finite differences, one residual each way, where it is not certified that
    none was passed over (`certified` is false). `vectors` are unit rows of length P. `converged` says which residuals
    met the tolerance or are as small as rounding lets them be; `status` is "max_products" if any did not, or if the
    products were spent before repeated values were looked for or `certify` was met. `route` is "gram" if the spectrum
    came from a dense Gram matrix: there is no solve then, and nothing that `tol`, `certify`, `max_products` or
    `checkpoint` would change. `fallback` is what PyTorch said about an operation without
    second derivative, `asymmetry` the largest `|uᵀCv − vᵀCu|/‖C‖` seen. `num_products` are products on all the data;
    `subsample_products`, those of a warm start, cost `warm_start/num_examples` of one each.
    """

    values: Tensor
    residuals: Tensor
    lower: Tensor
    upper: Tensor
    confidence: float
    vectors: Tensor
    status: Literal["converged", "max_products"]
    num_products: int
    converged: Tensor
    certified: Tensor
    curvature: Curvature
    num_examples: int
    num_parameters: int
    route: Literal["lanczos", "gram"]
    fallback: str | None
    asymmetry: float
    subsample_products: int = 0


def top_eigenvalues(
    model: nn.Module,
    loss: Loss,
    data: Data,
    k: int = 1,
    *,
    which: Which = "largest",
    curvature: Curvature = "hessian",
    tol: float = 1e-2,
    certify: float | None = None,
    max_products: int = 200,
    params: Sequence[str] | str | None = None,
    unused: Unused = "refuse",
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    checkpoint: str | Path | None = None,
    warm_start: int | None = None,
) -> Eigenvalues:
    """The k largest or smallest (most negative) eigenvalues of a curvature of `L = (1/N) Σ ℓ(f(x_i), y_i)`, signed.

    Lanczos with full reorthogonalization, until every residual is at most `tol·‖C‖`. Some eigenvalue is then closer to
    the value, by `residual²/gap`; of two that are a few `tol` apart it may be the lower one. `lower` and `upper` hold
    for λmax itself; `certify` = ε goes on until they are at most ε/(1 − 2ε) of the spread λmax − λmin apart (at 150,000
    parameters ε = 6 % takes 22 products, .1 % 161). One product costs about two gradients.
    `generator` draws the start (default: a fixed stream, the same start every time), `dtype` computes in another
    precision, `checkpoint` names a file that a solve saves itself in and goes on from.

    `warm_start` is a number of examples: a subset of the data, drawn by `generator`, is solved first, and the solve
    starts from the sum of what that found and a random vector of the same length, which about halves the products on
    all the data. The random part keeps the intervals valid however wrong the subset is (see `mixed` in
    measure/solve.py), and `certify` is met by what the solve has seen, in fewer products than the theorem needs. But a
    wrong start, near another eigenvector, can end a solve to a loose `tol` there with λmax unseen: `upper` says how far
    that may be. It changes nothing where there are fewer than three parameters or the spectrum comes from a Gram
    matrix; it is solved again when a checkpoint is gone on with.

    Raises:
        ValueError: an argument is out of range, or the model, loss or data cannot be measured (see `opened`).

    >>> model = nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 3.0]])  # XᵀX/N = diag(1/2, 9/2)
    >>> found = top_eigenvalues(model, "mse", (x, torch.zeros(2, 1)), k=2)
    >>> [round(value, 4) for value in found.values.tolist()], found.status
    ([4.5, 0.5], 'converged')
    """
    _refuse(k, which, tol, max_products, certify)
    refuse_unknown_curvature(curvature)
    generator = generator or torch_generator(0, "lanczos")
    with opened(model, loss, data, params=params, unused=unused, dtype=dtype) as problem:
        refuse_subset(warm_start, problem.num_examples)
        found = _gram(problem, curvature, k) if which == "largest" else None
        if found is not None:
            return _by_gram(problem, curvature, *found)
        operator, warm = CurvatureOperator(problem, curvature), None
        if warm_start is not None and problem.num_parameters >= UNIMODAL_FROM:
            subset = drawn_subset(problem, warm_start, generator)
            warm = warm_vector(subset, curvature, k, which, generator)
        steps = 0 if certify is None else steps_to_certify(certify, operator.size, 1.0 - CONFIDENCE)
        settings: dict[str, object] = {"k": k, "which": which, "curvature": curvature, "tol": tol, "steps": steps}
        settings["start"] = generator.initial_seed()
        if warm is None:
            solve = Solve(operator, k, which, tol, max_products, generator, max(steps, MIN_STEPS))
        else:
            narrow = math.inf if certify is None else certify / (1.0 - 2.0 * certify)
            solve = Solve(operator, k, which, tol, max_products, generator, WARM_STEPS, warm.vector, narrow)
            settings |= {"warm_start": warm_start, "certify": certify}
        _run(solve, problem, settings, None if checkpoint is None else Path(checkpoint))
        return _record(solve, operator, 0 if warm is None else warm.num_products)


def _refuse(k: int, which: str, tol: float, max_products: int, certify: float | None) -> None:
    if k < 1:
        raise ValueError(f"k = {k}; allowed: an integer ≥ 1")
    if which not in ("largest", "smallest", "both"):
        raise ValueError(f'which = "{which}"; allowed: "largest", "smallest", "both"')
    if not 0.0 < tol < 1.0:
        raise ValueError(f"tol = {tol}; allowed: between 0 and 1, the residual relative to ‖C‖")
    if certify is not None and not 0.0 < certify < 0.5:
        raise ValueError(f"certify = {certify}; allowed: between 0 and 1/2, a share of the spread of the spectrum")
    if max_products < 1:
        raise ValueError(f"max_products = {max_products}; allowed: an integer ≥ 1")


def _gram(problem: Problem, curvature: Curvature, k: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """Eigenpairs by the Gram matrix where it pays."""
    if not _by_rows(problem, curvature):
        return None
    return gram_pairs(problem, curvature, min(k, problem.num_parameters))


def _by_rows(problem: Problem, curvature: Curvature) -> bool:
    """Whether the Gram matrix pays, and the model takes one example and gives one row of outputs for it."""
    try:
        outputs = problem.values(problem.chunks[0][0][:1])
    except ValueError:
        return False
    return outputs.ndim == 2 and len(outputs) == 1 and gram_pays(problem, curvature, outputs.shape[1])


def _run(solve: Solve, problem: Problem, settings: dict[str, object], path: Path | None) -> None:
    if path is None:
        solve.run()
        return
    own = file.fingerprint(problem, settings)
    if (saved := file.load(path, own)) is not None:
        try:
            solve.restore(*saved)
        except (KeyError, TypeError, ValueError, RuntimeError):
            raise file.damaged(path) from None

    def save(solve: Solve) -> None:
        if solve.done or solve.operator.num_products % SAVE_EVERY == 0:
            tensors, meta = solve.state()
            file.save(path, tensors, {**meta, "fingerprint": own})

    solve.run(save)


def _record(solve: Solve, operator: CurvatureOperator, subsample_products: int) -> Eigenvalues:
    refuse_asymmetric(solve.asymmetry, 1.0, operator.fallback)
    rows = [_row(solve, side) for side in solve.found]
    columns = [torch.stack(column) if solve.which == "both" else column[0] for column in zip(*rows, strict=True)]
    values, residuals, lower, upper, converged, certified, vectors = columns
    return Eigenvalues(
        values=values,
        residuals=residuals,
        lower=lower,
        upper=upper,
        confidence=CONFIDENCE,
        vectors=vectors,
        status="converged" if solve.done and bool(converged.all()) else "max_products",
        num_products=operator.num_products,
        converged=converged,
        certified=certified,
        curvature=operator.curvature,
        num_examples=operator.problem.num_examples,
        num_parameters=operator.size,
        route="lanczos",
        fallback=operator.fallback,
        asymmetry=solve.asymmetry,
        subsample_products=subsample_products,
    )


def _row(solve: Solve, side: int) -> tuple[Tensor, ...]:
    """One end's columns, descending; fewer than k pairs (products ran out) are filled with NaN."""
    assert solve.ends is not None
    pairs = list(solve.found[side])
    outer = solve.ends.largest if side == 1 else solve.ends.smallest
    bounds = [(p.value - p.residual, p.value + p.residual) for p in pairs]
    exact = getattr(solve.operator, "fallback", None) is None
    if exact:  # later passes can only move the outermost value outward, inside the interval
        bounds[0] = (max(outer[0], bounds[0][0]), outer[1]) if side == 1 else (outer[0], min(outer[1], bounds[0][1]))
    missing = solve.k - len(pairs)
    empty = torch.full((solve.operator.size,), math.nan, dtype=solve.operator.dtype, device=solve.operator.device)
    pairs += [Pair(math.nan, math.inf, empty)] * missing
    bounds += [(-math.inf, math.inf)] * missing
    flags = solve.converged(side)
    order = list(range(solve.k))[::side]
    columns = (
        torch.tensor([pairs[i].value for i in order], dtype=torch.float64, device="cpu"),
        torch.tensor([pairs[i].residual for i in order], dtype=torch.float64, device="cpu"),
        torch.tensor([bounds[i][0] for i in order], dtype=torch.float64, device="cpu"),
        torch.tensor([bounds[i][1] for i in order], dtype=torch.float64, device="cpu"),
        torch.tensor([flags[i] for i in order], device="cpu"),
        torch.tensor([i == 0 and exact for i in order], device="cpu"),
    )
    return *columns, torch.stack([pairs[i].vector for i in order])


def _by_gram(problem: Problem, curvature: Curvature, values: Tensor, vectors: Tensor, residuals: Tensor) -> Eigenvalues:
    """Exact but for rounding: every eigenvalue has its index."""
    yes = torch.ones(len(values), dtype=torch.bool, device="cpu")
    return Eigenvalues(
        values=values.cpu(),
        residuals=residuals.cpu(),
        lower=(values - residuals).cpu(),
        upper=(values + residuals).cpu(),
        confidence=1.0,
        vectors=vectors.to(problem.theta.dtype),
        status="converged",
        num_products=0,
        converged=yes,
        certified=yes,
        curvature=curvature,
        num_examples=problem.num_examples,
        num_parameters=problem.num_parameters,
        route="gram",
        fallback=None,
        asymmetry=0.0,
    )
