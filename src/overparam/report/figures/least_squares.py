"""Double descent in closed form: exact risks of least squares beside the penalty that removes the peak."""

import math
from typing import Any

from matplotlib.axes import Axes

from overparam.report.figures.drawing import Drawing, key, panels
from overparam.report.figures.risks import min_norm_risk, optimal_ridge_risk, weak_features_risk
from overparam.report.figures.style import log_scale, looks, styled

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
