"""Double descent in closed form: exact risks of least squares beside the penalty that removes the peak.

Least squares on n Gaussian examples with p features. All are excess risks `E (x·ŵ − x·β)²` at a fresh x unless said
otherwise, for y = x·β + noise of variance `noise`, and `signal` = |β|². "Minimum norm" is the pseudo-inverse's
solution, which gradient descent from 0 converges to.
"""

from __future__ import annotations  # matplotlib is loaded where something is drawn

import math
from typing import TYPE_CHECKING, Any

from overparam.report.figures.drawing import Drawing, key, panels
from overparam.report.figures.style import log_scale, looks, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

N, FEATURES, NOISE = 40, 120, 0.25
LEAST, RIDGE = "minimum norm", "ridge, best penalty"
CAPTION = (
    f"Exact risks of least squares on {N} Gaussian examples, noise variance {NOISE:g}, |β| = 1; nothing is simulated. "
    f"Left: test error when p of {FEATURES} equally weak features are seen (Belkin, Hsu & Xu 2020). Right: excess risk "
    "on p isotropic features, all of which matter, of the solution of minimum norm, exact in expectation, and of ridge "
    "regression with the best penalty, in the limit of large n and p (Dobriban & Wager 2018). The expectation is "
    f"infinite for p from {N - 1} to {N + 1}, around the dotted line: least squares interpolates from p = n on, not "
    "from n times outputs."
)


def least_squares() -> Drawing:
    """The figure; the same for every study and preset."""
    styles = looks([LEAST, RIDGE])
    with styled():
        figure, ((left, right),) = panels(1, 2, (4.6, 3.2))
        ends = range(2, N - 1), range(N + 2, 4 * N)
        for seen in (ends[0], range(ends[1].start, FEATURES + 1)):
            _line(left, seen, [weak_features_risk(N, p, FEATURES, noise=NOISE) for p in seen], styles[LEAST])
        for seen in ends:
            _line(right, seen, [min_norm_risk(N, p, noise=NOISE) for p in seen], styles[LEAST])
        whole = range(2, 4 * N)
        _line(right, whole, [optimal_ridge_risk(N, p, noise=NOISE) for p in whole], styles[RIDGE])
        for axes, title in ((left, "Test error, weak features"), (right, "Excess risk, isotropic features")):
            axes.axvline(N, color="#999999", lw=0.8, ls=(0, (1, 2)), zorder=0)
            axes.set_title(title)
            axes.set_xlabel("features p")
            log_scale(axes, "y")
        key(figure, {name: {k: v for k, v in style.items() if k != "marker"} for name, style in styles.items()})
    alt = f"Closed-form risks of least squares against the number of features, which peak at {N}, that of examples"
    return Drawing("closed_form", alt, CAPTION, figure)


def _line(axes: Axes, places: range, risks: list[float], style: dict[str, Any]) -> None:
    assert all(map(math.isfinite, risks))
    axes.plot(list(places), risks, color=style["color"], ls=style["linestyle"], lw=1.4)


def min_norm_risk(n: int, p: int, *, noise: float, signal: float = 1.0) -> float:
    """Minimum-norm least squares on isotropic features, exact in expectation; infinite for |n − p| ≤ 1.

    `noise·p/(n − p − 1)` for p < n − 1, and `signal·(1 − n/p) + noise·n/(p − n − 1)` for p > n + 1.

    Source: the mean of an inverse Wishart matrix; limits in Hastie, Montanari, Rosset & Tibshirani (2022).

    >>> [round(min_norm_risk(40, p, noise=0.25), 4) for p in (10, 30, 40, 60, 160)]
    [0.0862, 0.8333, inf, 0.8596, 0.834]
    """
    if p < n - 1:
        return noise * p / (n - p - 1)
    if p <= n + 1:
        return math.inf
    return signal * (1 - n / p) + noise * n / (p - n - 1)


def weak_features_risk(n: int, p: int, features: int, *, noise: float, signal: float = 1.0) -> float:
    """Test error, noise included, when only p of equally weak `features` are seen; infinite for |n − p| ≤ 1.

    With seen signal a = signal·p/features and unseen u = signal − a: `(u + noise)(1 + p/(n − p − 1))` for p ≤ n − 2,
    and `a(1 − n/p) + (u + noise)(1 + n/(p − n − 1))` for p ≥ n + 2. With little noise it falls beyond the
    peak below all that was reached before it; with `noise` = `signal` it never does.

    Source: Belkin, Hsu & Xu (2020), theorem 1.

    >>> [round(weak_features_risk(40, p, 120, noise=0.25), 3) for p in (10, 30, 50, 60, 120)]
    [1.569, 4.333, 4.62, 2.496, 1.043]
    """
    seen = signal * p / features
    missed = signal - seen + noise
    if p <= n - 2:
        return missed * (1 + p / (n - p - 1))
    if p <= n + 1:
        return math.inf
    return seen * (1 - n / p) + missed * (1 + n / (p - n - 1))


def optimal_ridge_risk(n: int, p: int, *, noise: float, signal: float = 1.0) -> float:
    """Ridge regression on isotropic features with the best penalty, `noise·p/signal` on XᵀX: n and p large.

    With γ = p/n and λ = noise·γ/signal: `noise·γ·m(−λ)`, `m = [−(1 − γ + λ) + √((1 − γ + λ)² + 4γλ)] / (2γλ)`. It has
    no peak.

    Source: Dobriban & Wager (2018), theorem 2.1.

    >>> round(optimal_ridge_risk(40, 60, noise=0.25), 3)
    0.543
    """
    gamma = p / n
    penalty = noise * gamma / signal
    middle = 1 - gamma + penalty
    stieltjes = (math.sqrt(middle**2 + 4 * gamma * penalty) - middle) / (2 * gamma * penalty)
    return noise * gamma * stieltjes
