"""Tests: paired t, equivalence, exact sign flips, Welch, Holm's correction, slopes per seed."""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from overparam.claims.intervals import Values

Direction = Literal["greater", "less"]
EXACT_UP_TO = 16  # 2¹⁶ sign patterns are still enumerated


def paired_t(differences: Values, null: float = 0.0, direction: Direction = "greater") -> float:
    """One-sided p of Student's t for mean difference > null (or <). Equal differences give 0, ½ or 1.

    >>> round(paired_t(np.array([1.0, 2.0, 3.0])), 4)
    0.0371
    """
    shifted = (differences - null) * (1.0 if direction == "greater" else -1.0)
    n, mean = len(shifted), float(shifted.mean())
    sd, negligible = float(shifted.std(ddof=1)), rounding(differences, null)
    if sd <= negligible:
        return 0.5 if abs(mean) <= negligible else float(mean < 0.0)
    return float(stats.t.sf(mean / (sd / math.sqrt(n)), n - 1))


def rounding(values: Values, bound: float = 0.0) -> float:
    """What rounding may add to values of this size, or to their distance from a bound."""
    return 1e-12 * max(1.0, abs(bound), float(np.abs(values).max()))


def no_spread(values: Values, bound: float = 0.0) -> bool:
    """Whether all values are equal but for rounding, their own or that of their distance from a bound."""
    return float(values.std(ddof=1)) <= rounding(values, bound)


def tost(differences: Values, margin: float) -> float:
    """p of equivalence: the larger of the one-sided p of mean > −margin and of mean < margin (Schuirmann 1987)."""
    return max(paired_t(differences, -margin, "greater"), paired_t(differences, margin, "less"))


def sign_flip(
    differences: Values, null: float = 0.0, direction: Direction = "greater", *, generator: np.random.Generator
) -> float | None:
    """Sign-flip p of the mean, the claimed side doubled as for the t interval; `None` below six pairs.

    Exact up to 16 pairs; above, 2¹⁶ random sign patterns and the one that was seen (Phipson & Smyth 2010). Five
    pairs cannot reach .05: the smallest p of n pairs is 2^(1−n).

    >>> sign_flip(np.ones(6), generator=np.random.default_rng(0))
    0.03125
    """
    n = len(differences)
    if n < 6:
        return None
    shifted = (differences - null) * (1.0 if direction == "greater" else -1.0)
    if n <= EXACT_UP_TO:
        signs = np.array(list(product((1.0, -1.0), repeat=n)))
    else:
        signs = np.vstack([np.ones(n), generator.choice((1.0, -1.0), size=(2**EXACT_UP_TO, n))])
    sums = signs @ shifted
    return min(1.0, 2.0 * float(np.mean(sums >= sums[0] - 1e-12 * np.abs(shifted).sum())))


def welch(a: Values, b: Values) -> float | None:
    """Two-sided p of Welch's t for unpaired groups, which the paper promised; `None` without spread."""
    if min(len(a), len(b)) < 2 or (np.ptp(a) == 0 and np.ptp(b) == 0):
        return None
    moments = a.mean(), a.std(ddof=1), len(a), b.mean(), b.std(ddof=1), len(b)
    return float(stats.ttest_ind_from_stats(*moments, equal_var=False).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p values: the k-th smallest of m is multiplied by m − k + 1, kept monotone.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def slopes_per_doubling(levels: Values, values: Values) -> Values:
    """Least-squares slope against log2(level) of each row of `values` (seeds × levels).

    >>> slopes_per_doubling(np.array([1.0, 2.0, 4.0]), np.array([[0.0, 3.0, 6.0]])).tolist()
    [3.0]
    """
    x = np.log2(levels)
    centred = x - x.mean()
    slopes = values @ centred / (centred @ centred)
    flat = np.ptp(values, axis=-1) == 0.0  # centred levels sum to 0 only up to rounding, whose sign would be tested
    found: Values = np.where(flat, 0.0, slopes)
    return found


def exponents(levels: Values, values: Values) -> Values:
    """Exponent b of `value ∝ level^b` of each row of `values` (seeds × levels): the slope of ln value on ln level.

    >>> exponents(np.array([1.0, 2.0, 4.0]), np.array([[1.0, 4.0, 16.0]])).tolist()
    [2.0]
    """
    return slopes_per_doubling(levels, np.log2(values))  # one base for both logarithms, whichever it is


def pseudo_values(statistic: Callable[[NDArray[np.intp]], float], num_seeds: int) -> Values:
    """Jackknife pseudo-values `nT − (n − 1)T₍₋ᵢ₎` of a statistic of a set of seeds, given by their indices.

    Their mean is the bias-corrected statistic, their t interval an interval for it (Tukey 1958).

    >>> pseudo_values(lambda kept: float(np.mean(np.array([1.0, 2.0, 6.0])[kept])), 3).round(9).tolist()
    [1.0, 2.0, 6.0]
    """
    everyone = np.arange(num_seeds, dtype=np.intp)
    whole = statistic(everyone)
    left_out = [statistic(np.delete(everyone, i)) for i in everyone]
    found: Values = num_seeds * whole - (num_seeds - 1) * np.array(left_out)
    return found


def effect_size(differences: Values, null: float = 0.0) -> float:
    """Paired standardized mean d_z beyond the null, with Hedges' small-sample factor 1 − 3/(4(n − 1) − 1).

    NaN without spread.
    """
    n = len(differences)
    if n < 2 or no_spread(differences, null):
        return math.nan
    shifted = differences - null
    return float(shifted.mean() / shifted.std(ddof=1)) * (1.0 - 3.0 / (4.0 * (n - 1) - 1.0))
