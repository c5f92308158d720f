"""Scaling laws: measures against a numeric factor on logarithmic axes, with the exponents fitted to them."""

from __future__ import annotations  # matplotlib is loaded where something is drawn

import math
from collections import Counter
from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from overparam.claims.estimand import level_text
from overparam.report.figures.drawing import Drawing, Material, bars, has_logarithm, panels
from overparam.report.figures.exponents import Scaling, exponent_written, scaling_of
from overparam.report.figures.style import log_scale, looks, styled
from overparam.studies.study import RUN_METRICS, Cell, Design, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_COLUMNS = 4
METHOD = (
    "Geometric means over seeds with 95 % t intervals of the logarithms; thin lines are seeds. b is the exponent of "
    "measure ∝ factor^b: the slope of least squares on these axes, fitted to each seed that has a value at every level "
    "of its panel, with the 95 % t interval over these n seeds. Dashed: a given exponent, for reference."
)


def scalings(material: Material) -> list[Scaling]:
    """The numbers of every panel that the design declares."""
    return [scaling_of(material.frame, panel) for panel in material.design.panels]


def scaling(material: Material, found: Sequence[Scaling]) -> Drawing | None:
    """All panels, each arm from a row of its own on; nothing where none is declared."""
    if not found:
        return None
    arms = {name: [each for each in found if each.panel.arm == name] for name in material.titles}
    columns = min(MOST_COLUMNS, max(map(len, arms.values())))
    rows = [mine[i : i + columns] for mine in arms.values() for i in range(0, len(mine), columns)]
    width = max(2.9, 9.6 / max(2, columns))
    with styled():
        figure, grid = panels(len(rows), columns, (width, 3.4))
        for places, mine in zip(grid, rows, strict=True):
            places[0].set_ylabel(fill(material.titles[mine[0].panel.arm], 36))
            for axes, each in zip(places, mine, strict=False):
                _panel(axes, each, looks(list(material.titles))[each.panel.arm])
                axes.set_title(fill(each.panel.title, int(9 * width)))
                axes.set_xlabel(material.factor)
            for axes in places[len(mine) :]:
                axes.set_axis_off()
    alt = f"{', '.join(dict.fromkeys(each.panel.title for each in found))} against {material.factor}, both logarithmic"
    return Drawing("scaling", alt, _caption(material, found), figure)


def _panel(axes: Axes, found: Scaling, style: dict[str, Any]) -> None:
    """Seeds, means and reference; the key, with the exponent, stands below, where it hides nothing."""
    if not found.levels:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    for line in found.values.values():
        axes.plot(found.levels, line, color=style["color"], lw=0.6, alpha=0.35, marker=".", ms=2)
    bars(axes, found.levels, found.means, style | {"linestyle": "-"})  # dashes are the reference's
    axes.containers[-1].set_label(_label(found))
    entries: list[Any] = [axes.containers[-1]]
    if found.panel.reference is not None and len(found.levels) > 1:
        name = f"b = {found.panel.reference:g}".replace("-", "−")
        line = _reference(found, found.panel.reference)
        entries += axes.plot(found.levels, line, color="#000000", lw=0.8, ls="--", label=f"{name}, for reference")
    log_scale(axes, "x", "y")
    axes.set_xticks(found.levels, [level_text(level) for level in found.levels])
    axes.tick_params(axis="x", labelsize=8)
    axes.legend(handles=entries, loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=8)


def _label(found: Scaling) -> str:
    if len(found.levels) < 2:
        return "one level has no exponent"
    if found.exponent.n == 0:
        return "no seed has every level"
    return f"b = {exponent_written(found.exponent)}, n = {found.exponent.n}"


def _reference(found: Scaling, exponent: float) -> list[float]:
    """`y = C·level^exponent`, with C so that the line goes through the middle of the means."""
    x, y = np.log(found.levels), np.log([middle for middle, _, _ in found.means])
    line: list[float] = np.exp(y.mean() + exponent * (x - x.mean())).tolist()
    return line


def _caption(material: Material, found: Sequence[Scaling]) -> str:
    """n, interval, method, what varied, failures."""
    counts = [count for each in found for count in each.counts]
    few, many = min(counts, default=0), max(counts, default=0)
    n = f"n = {many}" if few == many else f"n = {few} to {many}"
    said = [METHOD, f"{n} seeds.", material.design.caption, *_left_out(material), *_not_drawn(material.design)]
    return " ".join(text for text in said if text)


def _left_out(material: Material) -> list[str]:
    """Runs that failed, each once, and what runs that ended well have no place for on a logarithmic axis."""
    rows = {(row["arm"], row["level"], row["seed"]): row for row in material.frame.iter_rows(named=True)}
    failed: dict[tuple[str, str, int], str] = {}
    values: Counter[str] = Counter()
    for cell, panel in _expected(material.design):
        place = (cell.arm, level_text(cell.level), cell.seed)
        row = rows.get(place, {"status": "missing"})
        if row["status"] != "ok":
            failed[place] = row["status"]
        elif word := _unusable(row.get(panel.metric)):
            values[word] += 1
    counted = (("Runs", Counter(failed.values())), ("Values", values))
    said = {what: ", ".join(f"{n} {word}" for word, n in sorted(words.items())) for what, words in counted}
    return [f"{what} left out: {text}." for what, text in said.items() if text]


def _expected(design: Design) -> list[tuple[Cell, Panel]]:
    """Cells with a place on the axis whose metric should be there: of every run, or of those that a probe is for."""
    return [
        (cell, panel)
        for cell in design.cells()
        for panel in design.panels
        if panel.arm == cell.arm and has_logarithm(cell.level)
        if panel.metric in RUN_METRICS or any(panel.metric in probe.columns for probe in design.probes_of(cell))
    ]


def _unusable(value: float | None) -> str:
    """Why a value is not drawn; empty if it is."""
    if value is None:
        return "not measured"
    return "" if math.isfinite(value) and value > 0 else "not positive"


def _not_drawn(design: Design) -> list[str]:
    shown = {panel.arm for panel in design.panels}
    levels = [level.value for arm in design.arms if arm.name in shown for level in arm.levels]
    named = list(dict.fromkeys(level_text(level) for level in levels if not has_logarithm(level)))
    return [f"Levels that are not positive numbers are not drawn: {', '.join(named)}."] if named else []
