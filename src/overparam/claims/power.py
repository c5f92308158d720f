"""What n seeds can settle, before they are spent."""

import math
from bisect import bisect_left

from scipy import stats

from overparam.claims.claim import Claim

MAX_SEEDS = 1000


def power_of_t(effect: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """Power of the one-sample t at two-sided level α to find a mean of `effect` on its side: noncentral t.

    >>> round(power_of_t(1.0, 1.0, 10), 3)
    0.803
    """
    if n < 2:
        return 0.0
    critical = float(stats.t.ppf(1 - alpha / 2, n - 1))
    return float(stats.nct.sf(critical, n - 1, math.sqrt(n) * effect / sd))


def power_of_tost(margin: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """Power of the equivalence test at a true difference of 0, by its usual normal-theory bound."""
    if n < 2:
        return 0.0
    room = margin / (sd / math.sqrt(n)) - float(stats.t.ppf(1 - alpha, n - 1))
    return max(0.0, 2.0 * float(stats.t.cdf(room, n - 1)) - 1.0)


def power(claim: Claim, n: int, sd: float | None = None, family: int = 1) -> float:
    """Chance that n seeds settle the claim when the truth is one margin away from its null (equivalence: 0).

    With a `family` of confirmatory claims it is the chance at α/family, the strictest step of Holm's correction.
    """
    spread, alpha = claim.pilot_sd if sd is None else sd, 0.05 / family
    if claim.test == "equivalence":
        return power_of_tost(claim.margin, spread, n, alpha)
    return power_of_t(claim.margin, spread, n, alpha)


def seeds_needed(claim: Claim, sd: float, target: float = 0.8, family: int = 1) -> int | None:
    """Smallest n with at least the target power; `None` above a thousand."""
    if not sd > 0:
        return 3
    if power(claim, MAX_SEEDS, sd, family) < target:
        return None
    candidates = range(3, MAX_SEEDS + 1)
    return candidates[bisect_left(candidates, target, key=lambda n: power(claim, n, sd, family))]
