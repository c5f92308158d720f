"""Masks by density: where the weights are left, and what masks of two seeds share beyond chance."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

from matplotlib.axes import Axes

from overparam.analyse.frame import Reading
from overparam.analyse.intervals import t_interval
from overparam.report.drawing import Drawing, Material, bars, levels_of, panels
from overparam.report.style import log_scale, looks
from overparam.specs.mask_probe import MaskProfile
from overparam.specs.probe import Measured

CAPTION = (
    "Left: share of the weights that each layer keeps, mean over seeds, of the first arm of a network; dashed is the "
    "density of all layers. Right: weights that a mask shares with that of another seed, over what masks with the same "
    "counts in each layer and random places share on average (dashed: 1); means over seeds with 95 % t intervals. All "
    "seeds are compared with one, so these are not independent."
)


def masks(material: Material) -> Drawing | None:
    """A row of panels for each network: density by layer, and overlap over chance."""
    mine = material.readings_of(_wanted)
    if not mine:
        return None
    groups = {arm.name: arm.group for arm in material.design.arms}
    rows = [[r for r in mine if groups[r.arm] == group] for group in dict.fromkeys(groups[r.arm] for r in mine)]
    figure, grid = panels(len(rows), 2, (4.8, 3.7))
    for line, readings in zip(grid, rows, strict=True):
        arms = material.arms_of(readings)
        _densities(line[0], [r for r in readings if r.arm == arms[0]])
        for arm, style in looks(arms).items():
            _shared(line[1], [r for r in readings if r.arm == arm], material.titles[arm], style)
        titles = (f"{material.titles[arms[0]]}: layers, %", "shared weights / chance")
        for axes, title in zip(line, titles, strict=True):
            axes.set_title(title)
            axes.set_xlabel(material.factor)
            axes.legend(fontsize="small")
    alt = "Density of each layer, and weights shared by two seeds over chance, against the density of all layers"
    return Drawing("masks", alt, f"{CAPTION} {_farthest(mine)}", figure)


def _wanted(probe: Measured) -> bool:
    return isinstance(probe, MaskProfile)


def _densities(axes: Axes, readings: Sequence[Reading]) -> None:
    levels = [float(level) for level in levels_of(readings)]
    of_level = [[r.rows[-1] for r in readings if r.level == level] for level in levels_of(readings)]
    axes.plot(levels, levels, color="#000000", lw=0.8, ls="--")
    for index, (layer, style) in enumerate(looks(of_level[0][0]["layers"]).items()):
        kept = [100 * mean(row["densities"][index] for row in rows) for rows in of_level]
        drawn = [(level, share) for level, share in zip(levels, kept, strict=True) if share > 0]
        axes.plot(*zip(*drawn, strict=True), label=layer, ms=4.5, lw=1.2, **style)
    log_scale(axes, "x", "y")


def _shared(axes: Axes, readings: Sequence[Reading], title: str, style: dict[str, Any]) -> None:
    found = {level: [r.rows[-1]["mask_excess"] for r in readings if r.level == level] for level in levels_of(readings)}
    there = {float(level): [v for v in values if v is not None] for level, values in found.items()}
    means = {level: t_interval(values) for level, values in there.items() if values}
    axes.axhline(1.0, color="#000000", lw=0.8, ls="--")
    bars(axes, list(means), [(each.estimate, each.lower, each.upper) for each in means.values()], style)
    axes.plot([], [], label=title, ms=4.5, lw=1.2, **style)
    log_scale(axes, "x")


def _farthest(readings: Sequence[Reading]) -> str:
    """How far from chance pairs lie, in standard deviations under the null."""
    z = [row["mask_overlap_z"] for reading in readings for row in reading.rows if row["mask_overlap_z"] is not None]
    return f"Distances from chance: {min(z):.1f} to {max(z):.1f} standard deviations." if z else ""
