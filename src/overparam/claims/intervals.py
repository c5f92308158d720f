"""Interval estimates over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A point estimate with its bounds, how they were computed, and the spread of the values behind it."""

    estimate: float
    lower: float
    upper: float
    n: int
    sd: float
    method: str


def t_interval(values: Sequence[float] | Values, confidence: float = 0.95) -> Interval:
    """Student's interval of the mean: `x̄ ± t_{n−1} s/√n`; without bounds (NaN) below two values.

    >>> found = t_interval([1.0, 2.0, 3.0])
    >>> round(found.lower, 4), found.estimate, round(found.upper, 4)
    (-0.4841, 2.0, 4.4841)
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) == 0:
        return Interval(math.nan, math.nan, math.nan, 0, math.nan, "t")
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean, math.nan, math.nan, 1, math.nan, "t")
    sd = float(x.std(ddof=1))
    half = float(stats.t.ppf(0.5 + confidence / 2, len(x) - 1)) * sd / math.sqrt(len(x))
    return Interval(mean, mean - half, mean + half, len(x), sd, "t")


def bca_interval(
    values: Sequence[float] | Values,
    *,
    generator: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 1000,
) -> Interval:
    """Bias-corrected and accelerated bootstrap of the mean (Efron 1987).

    At five seeds it covers clearly less than it says, hence its label. Equal values have no bootstrap spread: the
    interval is the point itself.
    """
    x = np.asarray(values, dtype=np.float64)
    plain = t_interval(x, confidence)
    if len(x) < 3:
        return Interval(plain.estimate, math.nan, math.nan, plain.n, plain.sd, "BCa: too few values")
    label = "BCa bootstrap, undercovers below n = 20" if len(x) < 20 else "BCa bootstrap"
    if plain.sd <= 1e-12 * max(1.0, abs(plain.estimate)):
        return Interval(plain.estimate, plain.estimate, plain.estimate, plain.n, plain.sd, f"{label} (equal values)")
    found = stats.bootstrap(
        (x,), np.mean, confidence_level=confidence, n_resamples=resamples, method="BCa", rng=generator
    ).confidence_interval
    return Interval(plain.estimate, float(found.low), float(found.high), plain.n, plain.sd, label)


def sampling_error(accuracy: float, num_test: int) -> float:
    """Standard error of an accuracy from the finite test set: `√(a(1 − a)/N)`.

    >>> sampling_error(0.5, 100)
    0.05
    """
    return math.sqrt(max(0.0, accuracy * (1.0 - accuracy)) / num_test)
