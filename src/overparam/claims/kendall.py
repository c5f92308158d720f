"""Kendall's rank correlation: plain, partial, and within groups."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from overparam.claims.comparisons import pseudo_values
from overparam.claims.intervals import Values

ROUNDING = 1e-12  # τ are ratios of small integers; what is nearer to 0 is 0


def tau(x: ArrayLike, y: ArrayLike) -> float:
    """Kendall's τ-b; NaN where one side never varies.

    >>> round(tau([1.0, 2.0, 3.0], [1.0, 3.0, 2.0]), 4)
    0.3333
    """
    one, other = (np.asarray(each, dtype=np.float64) for each in (x, y))
    if not np.isfinite(one).all() or not np.isfinite(other).all():
        return float(stats.kendalltau(one, other).statistic)
    # counted pair by pair: for as few runs as a study has, scipy takes ten times as long, most of it before it begins
    signs = [1 * (each[:, None] > each) - (each[:, None] < each) for each in (one, other)]
    untied = [math.sqrt(np.count_nonzero(each) // 2) for each in signs]
    if 0.0 in untied:
        return math.nan
    agreeing = int((signs[0] * signs[1]).sum()) // 2
    return min(1.0, max(-1.0, agreeing / untied[0] / untied[1]))


def partial_tau(x: ArrayLike, y: ArrayLike, z: ArrayLike) -> float:
    """Kendall's partial τ: `(τ_xy − τ_xz τ_yz)/√((1 − τ_xz²)(1 − τ_yz²))`; NaN if z orders one side completely.

    >>> partial_tau([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 4.0, 3.0])
    1.0
    """
    xy, xz, yz = tau(x, y), tau(x, z), tau(y, z)
    left, rest = (1.0 - xz**2) * (1.0 - yz**2), xy - xz * yz
    if left <= ROUNDING:
        return math.nan
    return 0.0 if abs(rest) <= ROUNDING else rest / math.sqrt(left)


def mean_tau(x: Sequence[ArrayLike], y: Sequence[ArrayLike]) -> float:
    """Mean of τ over groups: `x[g]` against `y[g]`.

    >>> mean_tau([[1.0, 2.0], [1.0, 2.0]], [[3.0, 4.0], [4.0, 3.0]])
    0.0
    """
    return float(np.mean([tau(one, other) for one, other in zip(x, y, strict=True)]))


def within_levels(x: Sequence[Values], y: Sequence[Values]) -> Values:
    """Jackknife pseudo-values by seed of `mean_tau` over levels; `x[l][i]` belongs to level l and seed i.

    Empty below three seeds, and where a measure does not vary within a level.
    """
    n = len(x[0]) if x else 0
    if n < 3:
        return np.empty(0)
    found = pseudo_values(lambda kept: mean_tau([v[kept] for v in x], [v[kept] for v in y]), n)
    return found if bool(np.isfinite(found).all()) else np.empty(0)
