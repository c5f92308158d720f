"""The sweep: accuracy and gap against the swept factor, one line for each arm."""

from __future__ import annotations  # matplotlib is loaded where something is drawn

import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from overparam.report.figures.drawing import has_logarithm
from overparam.report.figures.style import looks, styled
from overparam.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

PANELS = (("test_accuracy", "Test accuracy (%)"), ("gap", "Generalization gap: train − test accuracy (points)"))
EARLY_PANELS = (("early_stop_accuracy", "Test accuracy when stopped early (%)"), ("early_stop_step", "Early-stop step"))
MOST_TICKS = 12
PERCENTS = (1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 97, 98, 99, 99.5, 99.8, 99.9)
ENDS = (0.01, 99.99)  # percent; a logit axis draws what lies beyond at these


def sweep_figure(rows: Sequence[Row], frame: pl.DataFrame, factor: str) -> Figure:
    """Accuracy and gap against the swept factor, every arm: means with 95 % t intervals, seeds as faint dots.

    A row of panels for each group of arms. Positive levels sit on a log2 axis; other numbers and names have places of
    their own to the right of it.
    """
    from matplotlib.figure import Figure

    groups = grouped(rows)
    shown = [panels_of(group) for group in groups]
    columns = max(map(len, shown))
    with styled():
        height = 4.6 if len(groups) == 1 else 3.9 * len(groups)
        figure = Figure(figsize=(4.8 * columns, height), layout="constrained")
        parts = figure.subfigures(len(groups), 1, squeeze=False)[:, 0]
        for part, group, panels in zip(parts, groups, shown, strict=True):
            line = part.subplots(1, columns, squeeze=False)[0]
            for axes, (metric, label) in zip(line, panels, strict=False):
                draw_panel(axes, group, frame, metric, level_places(group))
                axes.set_title(f"{label}, logit axis" if axes.get_yscale() == "function" else label)
                axes.set_xlabel(factor)
            for axes in line[len(panels) :]:
                axes.set_axis_off()
            part.legend(handles=legend_keys(group), loc="outside lower center", ncols=3, handlelength=3.2)
    return figure


def grouped(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each group of arms, in the order of the design."""
    return [[row for row in rows if row["group"] == group] for group in dict.fromkeys(row["group"] for row in rows)]


def panels_of(rows: Sequence[Row]) -> tuple[tuple[str, str], ...]:
    """Metric and title of each panel of a group."""
    return (*PANELS, *(panel for panel in EARLY_PANELS if _measured(rows, panel[0])))


def _measured(rows: Sequence[Row], metric: str) -> bool:
    return any(not math.isnan(row.get(metric, math.nan)) for row in rows)


def level_places(rows: Sequence[Row]) -> dict[str, float]:
    """Horizontal position of every level: log2 of its value, then whole steps for levels without a logarithm."""
    values = {row["level"]: row["level_value"] for row in rows}
    numeric = {level: math.log2(value) for level, value in values.items() if has_logarithm(value)}
    start = max(numeric.values(), default=0.0) + 1.5
    others = [level for level in values if level not in numeric]
    return numeric | {level: start + 1.5 * index for index, level in enumerate(others)}


def legend_keys(rows: Sequence[Row]) -> list[Line2D]:
    """One key per arm with its colour, marker and dash, as both panels draw it."""
    from matplotlib.lines import Line2D

    titles = {row["arm"]: row["title"] for row in rows}
    styles: dict[str, dict[str, Any]] = looks(list(titles))
    return [Line2D([], [], label=title, ms=4.5, lw=1.2, **styles[arm]) for arm, title in titles.items()]


def draw_panel(axes: Axes, rows: Sequence[Row], frame: pl.DataFrame, metric: str, places: dict[str, float]) -> Axes:
    """One line per arm; arms are shifted slightly so that their bars do not hide each other."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    styles = looks(arms)
    for index, arm in enumerate(arms):
        shift = min(0.1, 0.4 / len(arms)) * (index - (len(arms) - 1) / 2)
        mine = [row for row in rows if row["arm"] == arm and not math.isnan(row[metric])]
        style: dict[str, Any] = dict(styles[arm])
        _dots(axes, drawn_runs(frame, arm, metric), metric, places, shift, style)
        _line(axes, mine, metric, places, shift, style)
    if limits := logit_limits(rows, metric):
        _stretch(axes, *limits)
    ticks = sorted((places[level], level) for level in _labelled(rows))
    axes.set_xticks(
        [place for place, _ in ticks], [level.replace(" ", "\n", 1).replace("-", "\n", 1) for _, level in ticks]
    )
    _boundary(axes, rows, places)
    return axes


def drawn_runs(frame: pl.DataFrame, arm: str, metric: str) -> pl.DataFrame:
    """The runs of an arm that have a dot."""
    return frame.filter((pl.col("arm") == arm) & (pl.col("status") == "ok") & pl.col(metric).is_finite())


def logit_limits(rows: Sequence[Row], metric: str) -> tuple[float, float] | None:
    """Ends in percent of the logit axis of a panel of accuracies; None for a linear axis.

    It is for a few low accuracies that would press all others against the top. Every mean lies inside; runs and
    intervals that reach beyond are cut.
    """
    percents = [100 * row[metric] for row in rows if not math.isnan(row[metric])]
    spread = max(percents, default=0.0) - min(percents, default=0.0)
    if not metric.endswith("accuracy") or spread <= 10 or spread <= 10 * (max(percents) - median(percents)):
        return None
    ends = _logit(np.array([min(percents), max(percents)]))
    low, high = (float(end) for end in _percent(ends + np.array([-0.1, 0.1]) * (ends[1] - ends[0])))
    return (low, high) if len(_percents(low, high)) > 2 else None


def _stretch(axes: Axes, low: float, high: float) -> None:
    axes.set_yscale("function", functions=(_logit, _percent))
    axes.set_yticks(_percents(low, high), [f"{tick:g}" for tick in _percents(low, high)])
    axes.set_ylim(low, high)


def _percents(low: float, high: float) -> list[float]:
    return [tick for tick in PERCENTS if low <= tick <= high]


def _logit(percent: NDArray[np.float64]) -> NDArray[np.float64]:
    share = np.clip(percent, *ENDS) / 100
    found: NDArray[np.float64] = np.log(share / (1 - share))
    return found


def _percent(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return 100 / (1 + np.exp(-logit))


def _labelled(rows: Sequence[Row]) -> list[str]:
    """Levels with a tick: all, or where they are many those that several arms have."""
    levels = list(dict.fromkeys(row["level"] for row in rows))
    shared = [level for level in levels if sum(row["level"] == level for row in rows) > 1]
    return shared if len(levels) > MOST_TICKS and shared else levels


def _boundary(axes: Axes, rows: Sequence[Row], places: dict[str, float]) -> None:
    """A thin rule where the log2 axis ends."""
    others = [places[row["level"]] for row in rows if not has_logarithm(row["level_value"])]
    if others and len(set(others)) < len(places):
        axes.axvline(min(others) - 0.75, color="#999999", lw=0.6, ls=(0, (2, 2)), zorder=0)


def _line(
    axes: Axes, rows: Sequence[Row], metric: str, places: dict[str, float], shift: float, style: dict[str, Any]
) -> None:
    x = [places[row["level"]] + shift for row in rows]
    y = [_unit(metric) * row[metric] for row in rows]
    bars = [[_reach(row, metric, "lower") for row in rows], [_reach(row, metric, "upper") for row in rows]]
    numeric = [i for i, row in enumerate(rows) if has_logarithm(row["level_value"])]
    axes.plot(
        [x[i] for i in numeric], [y[i] for i in numeric], color=style["color"], linestyle=style["linestyle"], lw=1.2
    )
    axes.errorbar(x, y, yerr=bars, fmt=style["marker"], color=style["color"], ms=4.5, capsize=2, elinewidth=1.0)


def _unit(metric: str) -> float:
    """Shares are shown in percent."""
    return 1.0 if metric.endswith("_step") else 100.0


def _reach(row: Row, metric: str, side: str) -> float:
    bound = row[f"{metric}_{side}"]
    return 0.0 if math.isnan(bound) else _unit(metric) * abs(bound - row[metric])


def _dots(
    axes: Axes, runs: pl.DataFrame, metric: str, places: dict[str, float], shift: float, style: dict[str, Any]
) -> None:
    x = [places[level] + shift for level in runs["level"]]
    y = [_unit(metric) * value for value in runs[metric]]
    axes.scatter(x, y, s=7, color=style["color"], alpha=0.3, linewidths=0)
