"""Curvature along training: λmax, and lr·λmax against the stability bound of momentum gradient descent."""

from __future__ import annotations  # matplotlib is loaded where something is drawn

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from overparam.probes.extreme_eigenvalues import ExtremeEigenvalues
from overparam.probes.measurement import Look
from overparam.probes.probe import Probe
from overparam.probes.reading import Reading
from overparam.report.figures.drawing import Drawing, Material, key, levels_of, panels, place_of
from overparam.report.figures.style import log_scale, looks
from overparam.specs.optimizers import SGD

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CAPTION = (
    "λmax along training, a line per seed, and times the learning rate of that step. Above the dashed line full-batch "
    "descent with momentum β would diverge on a quadratic of that curvature. The line is an orientation, not a test of "
    "stability: λmax is that of the network in eval mode, with the running statistics of its batch norms if it has "
    "any, while training steps see the statistics of their own batch. Running statistics lag early in training, and "
    "at step 0 they are untrained."
)


def along(material: Material) -> Drawing | None:
    """λmax and lr·λmax at every step that a probe looked at, one row of panels for each arm."""
    mine = material.readings_of(is_curvature_along)
    if not mine:
        return None
    arms = material.arms_of(mine)
    figure, grid = panels(len(arms), 2, (4.8, 3.7))
    styles = {level: style | {"linestyle": "-"} for level, style in looks(levels_of(mine)).items()}  # dashes: the bound
    for row, arm in zip(grid, arms, strict=True):
        readings = [reading for reading in mine if reading.arm == arm]
        for reading in readings:
            _lines(row, reading, styles[reading.level])
        bounds = _bounds(readings)
        for bound in bounds:
            row[1].axhline(bound, color="#000000", lw=0.8, ls="--")
        said = f"; dashed: 2(1 + β) = {' or '.join(f'{bound:g}' for bound in bounds)}" if bounds else ""
        _axes(row, [f"{material.titles[arm]}: {title}" for title in ("λmax", f"lr · λmax{said}")])
    key(figure, styles, material.factor)
    gaps = sum(not _drawn(look) for reading in mine for look in reading.looks)
    missing = f" Not drawn: {gaps} steps without a converged positive λmax." if gaps else ""
    caption = f"{CAPTION}{missing} {material.facts(is_curvature_along, [place_of(reading) for reading in mine])}"
    return Drawing("along", "Curvature along training, and times the learning rate", caption, figure)


def is_curvature_along(probe: Probe) -> bool:
    """Largest eigenvalues at several steps."""
    return isinstance(probe, ExtremeEigenvalues) and len(probe.at) > 1


def _bounds(readings: Sequence[Reading]) -> list[float]:
    """Largest stable lr·λ of gradient descent with the momentum of each run; other optimizers have no such number."""
    optimizers = [reading.spec.train.optimizer for reading in readings]
    return sorted({2.0 * (1.0 + optimizer.momentum) for optimizer in optimizers if isinstance(optimizer, SGD)})


def _drawn(look: Look) -> bool:
    """A converged solve whose λmax has a place on a log axis."""
    top = look["lambda_max"]
    return look.converged and top is not None and top > 0


def _lines(row: list[Axes], reading: Reading, style: dict[str, Any]) -> None:
    """One run in both panels, with a gap where there is nothing to draw."""
    tops = [each["lambda_max"] if _drawn(each) else math.nan for each in reading.looks]
    products = [each.lr * top for each, top in zip(reading.looks, tops, strict=True)]
    epochs = [each.epoch for each in reading.looks]
    for axes, values in zip(row, (tops, products), strict=True):
        axes.plot(epochs, values, ms=4, lw=1.1, **style)


def _axes(row: list[Axes], titles: list[str]) -> None:
    for axes, title in zip(row, titles, strict=True):
        log_scale(axes, "y")
        axes.set_title(title)
        axes.set_xlabel("epoch")
