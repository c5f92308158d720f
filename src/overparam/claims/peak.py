"""Is there a peak? A valley, a peak and a valley are chosen on all seeds but one, and looked for in that one.

The prominence of a peak, the smaller of its rise and its fall, is never negative in the sample it was chosen on, so
its size there proves nothing. In the seed that was left out the same three levels may lie in any order.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from overparam.claims.comparisons import paired_t
from overparam.claims.intervals import Values

Indices = NDArray[np.intp]
# What the larger of the two one-sided p values is multiplied by. Where leaving a seed out does not change the choice,
# the seed was in effect chosen on; without the factor up to 7 % of curves without a peak are called at .05 and
# 10 seeds. Measured by `bench/peak.py --calibrate`, the worst of its families at each number of seeds.
FACTORS = {4: 1.0, 6: 1.25, 8: 1.5, 10: 1.55, 15: 1.85, 20: 2.1}


@dataclass(frozen=True)
class HeldOut:
    """Rise and fall in each seed, in the unit of the metric, between the levels that the other seeds chose.

    `left`, `peak` and `right` are those levels' indices, one of each per seed.
    """

    rise: Values
    fall: Values
    left: Indices
    peak: Indices
    right: Indices

    @property
    def weaker(self) -> Literal["rise", "fall"]:
        """The side with less evidence, which decides."""
        return "rise" if paired_t(self.rise) >= paired_t(self.fall) else "fall"

    @property
    def p(self) -> float:
        """p of a peak: of both sides, each tested by a one-sided paired t, the larger, times a factor (`FACTORS`)."""
        return min(1.0, factor(len(self.rise)) * max(paired_t(self.rise), paired_t(self.fall)))


def factor(num_seeds: int) -> float:
    """The factor for the next tabulated number of seeds that is not smaller.

    Beyond the table it grows in proportion to the number of seeds, faster than anywhere within it.

    >>> factor(5), factor(40)
    (1.25, 4.2)
    """
    beyond = FACTORS[max(FACTORS)] * num_seeds / max(FACTORS)
    return next((value for seeds, value in FACTORS.items() if seeds >= num_seeds), beyond)


def most_prominent(curves: Values) -> tuple[Indices, Indices, Indices]:
    """Left valley, peak and right valley of the most prominent inner peak of each curve, (…, levels).

    The prominence at j is `min(m_j − min_{i<j} m_i, m_j − min_{k>j} m_k)`.

    >>> [int(found) for found in most_prominent(np.array([3.0, 1.0, 2.0, 5.0, 0.0]))]
    [1, 3, 4]
    """
    levels = curves.shape[-1]
    before = np.stack([curves[..., :j].argmin(-1) for j in range(1, levels - 1)], axis=-1)
    after = np.stack([j + 1 + curves[..., j + 1 :].argmin(-1) for j in range(1, levels - 1)], axis=-1)
    lows = np.take_along_axis(curves, before, -1), np.take_along_axis(curves, after, -1)
    inner = (curves[..., 1:-1] - np.maximum(*lows)).argmax(-1)[..., None]  # the higher valley bounds the prominence
    left, right = np.take_along_axis(before, inner, -1), np.take_along_axis(after, inner, -1)
    return left[..., 0], 1 + inner[..., 0], right[..., 0]


def held_out(values: Values) -> HeldOut:
    """Rise and fall of each seed (seeds × levels, in the order of the levels) at the choice of the others' mean.

    Raises:
        ValueError: fewer than three levels, or than two seeds.

    >>> held_out(np.array([[0.0, 2.0, 1.0]] * 3)).rise.tolist()
    [2.0, 2.0, 2.0]
    """
    seeds, levels = values.shape
    if levels < 3 or seeds < 2:
        raise ValueError(f"a peak needs at least 3 levels and 2 seeds, got {levels} and {seeds}")
    left, peak, right = most_prominent((values.sum(axis=0) - values) / (seeds - 1))
    each = np.arange(seeds)
    top = values[each, peak]
    return HeldOut(top - values[each, left], top - values[each, right], left, peak, right)


def first_below(levels: Values, values: Values, bound: float) -> Values:
    """Level at which each row of `values` (seeds × levels) first reaches the bound, between levels by `ln level`.

    It lies on the straight line from the last level above the bound to the first one at or below it; NaN if the row
    starts at or below the bound, or never reaches it.

    >>> first_below(np.array([1.0, 4.0]), np.array([[3.0, 1.0], [3.0, 2.5], [1.0, 0.0]]), 2.0).tolist()
    [2.0, nan, nan]
    """
    below = values <= bound
    first = below.argmax(axis=1)
    found = np.full(len(values), np.nan)
    for row in np.flatnonzero(below.any(axis=1) & (first > 0)):
        i = first[row]
        above, under = values[row, i - 1], values[row, i]
        share = (above - bound) / (above - under)
        found[row] = np.exp((1 - share) * np.log(levels[i - 1]) + share * np.log(levels[i]))
    return found
