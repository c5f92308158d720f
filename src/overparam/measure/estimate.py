"""A number with its sampling error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.special import stdtrit

EstimateStatus = Literal["ok", "lower_bound"]


@dataclass(frozen=True)
class Estimate:
    """A value with standard error, 95 % interval and cost in products (or gradients, where it says so).

    Status "lower_bound": the value is the best that a search found, the interval is open above. `fallback` is what
    PyTorch said about an operation without second derivative: products were finite differences then, whose error the
    interval leaves out.
    """

    value: float
    stderr: float
    lower: float
    upper: float
    status: EstimateStatus
    num_products: int
    fallback: str | None = None


def mean_with_interval(
    samples: Sequence[float], num_products: int, offset: float = 0.0, rounding: float = 0.0
) -> Estimate:
    """Mean of independent samples plus a known `offset`, with Student's 95 % interval at the fixed sample size.

    `rounding` bounds the error of computing the value; the interval is wider by it on both sides.

    >>> found = mean_with_interval([1.0, 2.0, 3.0], num_products=3)
    >>> found.value, round(found.lower, 4), round(found.upper, 4)
    (2.0, -0.4841, 4.4841)
    """
    n = len(samples)
    mean = math.fsum(samples) / n
    if n < 2:
        return Estimate(offset + mean, math.nan, -math.inf, math.inf, "ok", num_products)
    stderr = math.sqrt(math.fsum((s - mean) ** 2 for s in samples) / (n - 1) / n)
    half = float(stdtrit(n - 1, 0.975)) * stderr + rounding
    return Estimate(offset + mean, stderr, offset + mean - half, offset + mean + half, "ok", num_products)
