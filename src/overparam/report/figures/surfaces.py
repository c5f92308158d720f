"""Two loss surfaces side by side: how far the loss rises above that of the trained network."""

from __future__ import annotations  # matplotlib is loaded where something is drawn

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from overparam.probes.loss_surface import LossSurface
from overparam.probes.probe import Probe
from overparam.probes.reading import Reading
from overparam.report.figures.drawing import Drawing, Material, panels, place_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.contour import QuadContourSet

Floats = NDArray[np.float64]


def surfaces(material: Material) -> Drawing | None:
    """The first and the last level of one seed on one scale of colours."""
    mine = material.readings_of(is_surface)
    pair = _pair(material, mine)
    if pair is None:
        return None
    logs = log_increases([np.array(each.end["losses"], dtype=np.float64) for each in pair])
    finite = np.concatenate([each[np.isfinite(each)] for each in logs])
    if finite.size == 0:
        return None
    low, high = float(finite.min()), float(max(finite.max(), finite.min() + 0.1))
    figure, (places,) = panels(1, 2, (4.8, 3.9), sharey=True)
    for axes, reading, log in zip(places, pair, logs, strict=True):
        axes.set_title(f"{material.titles[reading.arm]}, {material.factor} {reading.level}")
        drawn = _plane(axes, reading, log, np.linspace(low, high, 19))
    bar = figure.colorbar(drawn, ax=places, shrink=0.85, label="increase of the loss over the centre")
    ticks = colour_ticks(low, high)
    bar.set_ticks([float(np.log10(tick)) for tick in ticks], labels=[f"{tick:g}" for tick in ticks])
    return Drawing("surfaces", "Two loss surfaces side by side", _caption(material, mine, pair), figure)


def is_surface(probe: Probe) -> bool:
    """Planes through the trained network."""
    return isinstance(probe, LossSurface)


def _pair(material: Material, mine: Sequence[Reading]) -> tuple[Reading, Reading] | None:
    """Two levels of one seed, of the last arm of the design that has them: later arms control for more."""
    for arm in reversed(material.design.arms):
        for seed in material.design.seeds:
            found = [reading for reading in mine if (reading.arm, reading.seed) == (arm.name, seed)]
            if len(found) > 1:
                return found[0], found[-1]
    return None


def log_increases(planes: Sequence[Floats]) -> list[Floats]:
    """log₁₀ of the loss above that of the centre; where it is not above, the smallest increase of all planes."""
    rises = [plane - plane[len(plane) // 2, len(plane) // 2] for plane in planes]
    positive = np.concatenate([rise[np.isfinite(rise) & (rise > 0.0)] for rise in rises])
    if positive.size == 0:
        return [np.full_like(rise, np.nan) for rise in rises]
    return [np.log10(np.maximum(rise, positive.min())) for rise in rises]


def colour_ticks(low: float, high: float) -> list[float]:
    """Round numbers between 10^low and 10^high: powers of ten, and over few decades their doubles and halves.

    >>> colour_ticks(-0.5, 1.1)
    [0.5, 1.0, 2.0, 5.0, 10.0]
    """
    digits = (1, 2, 5) if high - low <= 4.0 else (1,)
    powers = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in digits]
    return [tick for tick in ticks if low <= np.log10(tick) <= high]


def _plane(axes: Axes, reading: Reading, log: Floats, levels: Floats) -> QuadContourSet:
    ticks = reading.end["coordinates"]
    drawn = axes.contourf(ticks, ticks, np.ma.masked_invalid(log).T, levels=levels, cmap="viridis")
    axes.plot([0], [0], marker="+", color="white", ms=9)
    axes.set_aspect("equal")
    axes.grid(visible=False)
    return drawn


def _caption(material: Material, mine: Sequence[Reading], pair: tuple[Reading, Reading]) -> str:
    bases = [np.array(each.end["losses"], dtype=np.float64) for each in pair]
    left, right = (f"{base[len(base) // 2, len(base) // 2]:.3g}" for base in bases)
    return (
        f"{material.titles[pair[0].arm]}, seed {pair[0].seed}: how far the loss rises above that of the trained "
        f"network (+, {left} left and {right} right) on a plane along two random directions that are scaled filter by "
        "filter to the weights; both panels share the colours. The lowest colour is also that of points not above the "
        "centre. One plane of many. "
        f"{material.facts(is_surface, [place_of(each) for each in pair], [place_of(each) for each in mine])}"
    )
