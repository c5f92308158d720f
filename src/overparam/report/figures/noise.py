"""Loss increase under weight noise: as it is, and in percent of the loss without noise."""

from __future__ import annotations  # matplotlib is loaded where something is drawn

from collections.abc import Sequence
from itertools import combinations
from textwrap import fill
from typing import TYPE_CHECKING, Any

from overparam.probes.probe import Probe
from overparam.probes.reading import Reading
from overparam.probes.weight_noise import WeightNoise
from overparam.report.figures.drawing import Drawing, Material, bars, geometric, key, levels_of, panels, place_of
from overparam.report.figures.style import log_scale, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = dict[float, tuple[float, float, float]]  # σ → geometric mean with its interval


def noise(material: Material) -> Drawing | None:
    """Increase against σ, one line per level, one column of panels per arm; below in percent of the base loss."""
    mine = material.readings_of(is_absolute_noise)
    if not mine:
        return None
    arms, styles = material.arms_of(mine), looks(levels_of(mine))
    width = max(2.3, 9.6 / len(arms))
    figure, grid = panels(2, len(arms), (width, 3.3), sharex=True, sharey="row")
    curves = {(arm, level): [r for r in mine if (r.arm, r.level) == (arm, level)] for arm in arms for level in styles}
    for row, relative in zip(grid, (False, True), strict=True):
        for axes, arm in zip(row, arms, strict=True):
            for level, style in styles.items():
                _line(axes, curve(curves[arm, level], relative=relative), style)
            log_scale(axes, "x", "y")
    for axes, arm in zip(grid[0], arms, strict=True):
        axes.set_title(fill(material.titles[arm], int(9 * width)))
    for axes in grid[1]:
        axes.set_xlabel("σ of the weight noise")
    grid[0][0].set_ylabel("increase of the loss")
    grid[1][0].set_ylabel("increase, % of the loss without noise")
    key(figure, styles, material.factor)
    alt = "Loss increase under weight noise against its standard deviation, absolute and in percent of the base loss"
    return Drawing("noise", alt, _caption(material, mine), figure)


def is_absolute_noise(probe: Probe) -> bool:
    """Noise of one size for all weights."""
    return isinstance(probe, WeightNoise) and probe.scale == "absolute"


def curve(readings: Sequence[Reading], *, relative: bool) -> Curve:
    """Geometric means over the seeds with a positive increase, at each σ; in percent of the base loss if `relative`."""
    values: dict[float, list[float]] = {}
    for reading in readings:
        end = reading.end
        unit = (end["loss"] or 0.0) / 100.0 if relative else 1.0
        for sigma, name in zip(end["sigma"], reading.probe.metrics, strict=True):
            if end[name] is not None and end[name] > 0 and unit > 0:
                values.setdefault(sigma, []).append(end[name] / unit)
    return {sigma: geometric(values[sigma]) for sigma in sorted(values)}


def _line(axes: Axes, found: Curve, style: dict[str, Any]) -> None:
    if found:
        bars(axes, list(found), list(found.values()), style)


def reversals(readings: Sequence[Reading]) -> tuple[int, int]:
    """Pairs of levels that change their order at a σ when divided by the base loss, and all pairs, by number."""
    levels = levels_of(readings)
    mine = {level: [r for r in readings if r.level == level] for level in levels}
    plain, percent = ({level: curve(mine[level], relative=each) for level in levels} for each in (False, True))
    pairs = [
        ((plain[a][sigma][0] - plain[b][sigma][0]), (percent[a][sigma][0] - percent[b][sigma][0]))
        for a, b in combinations(levels, 2)
        for sigma in plain[a].keys() & plain[b].keys() & percent[a].keys() & percent[b].keys()
    ]
    return sum(absolute * relative < 0 for absolute, relative in pairs), len(pairs)


def _caption(material: Material, mine: Sequence[Reading]) -> str:
    found = [reversals([r for r in mine if r.arm == arm]) for arm in material.arms_of(mine)]
    reversed_pairs, pairs = (sum(column) for column in zip(*found, strict=True))
    ends = [(reading.end, reading.probe.metrics) for reading in mine]
    dropped = sum(end[name] is None or end[name] <= 0 for end, names in ends for name in names)
    return (
        "Increase of the mean loss under Gaussian weight noise, the mean over draws: above as it is, below in percent "
        "of the loss without noise. Lines are geometric means over seeds with 95 % t intervals of the logarithms. "
        "Percents of a small base are large whatever the basin: dividing can reverse the order of two networks "
        f"although the absolute increase does not. It does so in {reversed_pairs} of {pairs} comparisons of two levels "
        f"of an arm at one σ.{f' Not drawn: {dropped} increases that were not positive.' if dropped else ''} "
        f"{material.facts(is_absolute_noise, [place_of(reading) for reading in mine])}"
    )
