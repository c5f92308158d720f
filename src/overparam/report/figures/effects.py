"""The figure of verdicts: each claim's effect with its interval, against its null and margin."""

from __future__ import annotations  # matplotlib is loaded where something is drawn

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from overparam.claims.verdict import Verdict
from overparam.report import written
from overparam.report.figures.style import COLOURS, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS: dict[str, dict[str, Any]] = {
    "supported": {"color": COLOURS[2], "marker": "o", "markerfacecolor": COLOURS[2]},
    "refuted": {"color": COLOURS[1], "marker": "X", "markerfacecolor": COLOURS[1]},
    "inconclusive": {"color": "#4a4a4a", "marker": "o", "markerfacecolor": "white"},
}


def effects_figure(verdicts: Sequence[Verdict]) -> Figure:
    """Estimates with 95 % intervals in the unit of each claim; inside the band, null ± margin, effects are small."""
    from matplotlib.figure import Figure

    drawn = drawable(verdicts)
    with styled():
        figure = Figure(figsize=(9.6, 1.0 + 0.42 * max(1, len(drawn))), layout="constrained")
        axes = figure.subplots()
        for row, verdict in enumerate(reversed(drawn)):
            _draw(axes, row, verdict)
        axes.set_yticks(range(len(drawn)), [_label(v) for v in reversed(drawn)])
        axes.set_ylim(-0.6, max(0.6, len(drawn) - 0.4))
        axes.axvline(0.0, color="#1b1b1b", lw=0.8, zorder=1)
        axes.set_xlabel("Effect (points of accuracy; trends: points per doubling), 95 % interval; band: null ± margin")
        axes.grid(axis="y", visible=False)
    return figure


def drawable(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Claims on differences of accuracies with an interval; all others have another unit and stand in the tables."""
    return [v for v in verdicts if written.unit(v.claim.estimand).startswith("points") and v.n >= 2]


def _draw(axes: Axes, row: int, verdict: Verdict) -> None:
    claim, interval = verdict.claim, verdict.interval
    low, high = 100 * (claim.null - claim.margin), 100 * (claim.null + claim.margin)
    axes.fill_betweenx([row - 0.36, row + 0.36], low, high, color="#e4e2db", lw=0, zorder=0)
    reach = [[100 * (interval.estimate - interval.lower)], [100 * (interval.upper - interval.estimate)]]
    look = LOOKS[verdict.verdict]
    axes.errorbar([100 * interval.estimate], [row], xerr=reach, ms=6, capsize=3, elinewidth=1.4, ls="", **look)
    end = (100 * interval.upper, row)
    axes.annotate(verdict.verdict, end, (8, 0), textcoords="offset points", va="center", color=look["color"])


def _label(verdict: Verdict) -> str:
    return verdict.claim.name if verdict.claim.confirmatory else f"{verdict.claim.name} (descriptive)"
