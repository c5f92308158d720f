"""Spectral densities: quadrature nodes, smoothed on an axis that is linear where the nodes cannot tell more."""

from __future__ import annotations  # matplotlib is loaded where something is drawn

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from overparam.probes.probe import Probe
from overparam.probes.reading import Reading
from overparam.probes.spectral_density import SpectralDensity
from overparam.report.figures.drawing import Drawing, Material, key, levels_of, panels, place_of
from overparam.report.figures.style import log_scale, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BANDWIDTH = 0.4  # of the density, in units of the axis: of ln λ where |λ| is large against its linear core
Floats = NDArray[np.float64]


def spectra(material: Material) -> Drawing | None:
    """Densities on an asinh axis, one line per run, one panel per arm."""
    mine = material.readings_of(is_whole_spectrum)
    if not mine:
        return None
    arms, styles, core = material.arms_of(mine), looks(levels_of(mine)), linear_core(mine)
    floor = 0.1 / _parameters(mine)
    low, high = _limits(mine, core)
    figure, grid = panels(1, len(arms), (max(4.0, 8.0 / len(arms)), 3.9), sharex=True, sharey=True)
    for axes, arm in zip(grid[0], arms, strict=True):
        for reading in (each for each in mine if each.arm == arm):
            _line(axes, reading, np.linspace(low, high, 800), core, styles[reading.level])
            axes.scatter(_ends(reading, core), [1.5 * floor] * 2, marker="|", color=styles[reading.level]["color"])
        axes.set_title(material.titles[arm])
        _ticks(axes, low, high, core)
    grid[0][0].set_ylabel("share of eigenvalues per unit of the axis")
    grid[0][0].set_ylim(bottom=floor)
    key(figure, {level: style | {"marker": ""} for level, style in styles.items()}, material.factor)
    return Drawing("spectra", "Spectral densities of the Hessian", _caption(material, mine, core), figure)


def is_whole_spectrum(probe: Probe) -> bool:
    """Spectra that were measured to be seen, not for their number of effective parameters, which has a panel."""
    return isinstance(probe, SpectralDensity) and probe.prior_precision is None


def resolution(nodes: Sequence[float], weights: Sequence[float]) -> float:
    """How far from 0 one probe's quadrature cannot tell where eigenvalues lie.

    Gauss quadrature fixes the share of eigenvalues below a node only to between the weights before it and those up to
    it (Chebyshev, Markov, Stieltjes): a node's weight may lie anywhere between its neighbours. Around 0 that is between
    the second node below and the second above; half of it is returned. Nodes of m steps over a spread R stand about
    πR/2m apart in the middle, and closer near the lower end, where 0 mostly is; hence the nodes and not a formula.

    >>> resolution([-0.5, -0.02, 0.08, 0.7, 9.0], [0.1, 0.5, 0.2, 0.1, 0.1])
    0.6
    """
    there = np.sort(np.array(nodes)[np.array(weights) > 0.0])
    first = int((there < 0.0).sum())  # of those at 0 or above
    return float(there[min(first + 1, len(there) - 1)] - there[max(first - 2, 0)]) / 2.0


def linear_core(readings: Sequence[Reading]) -> float:
    """Where the axis is linear: up to the coarsest resolution of all lines, so that none shows more than was found."""
    rows = [reading.end for reading in readings]
    found = (resolution(n, w) for row in rows for n, w in zip(row["nodes"], row["weights"], strict=True))
    return max(found) or 1.0


def density(reading: Reading, x: Floats, core: float) -> Floats:
    """Density per unit of the axis asinh(λ/core): each node spread by a Gaussian, the mean over probes."""
    row = reading.end
    nodes, weights = np.arcsinh(np.array(row["nodes"]) / core), np.array(row["weights"])
    peaks = np.exp(-0.5 * ((x[:, None, None] - nodes) / BANDWIDTH) ** 2) / (BANDWIDTH * math.sqrt(2.0 * math.pi))
    found: Floats = (weights * peaks).sum((1, 2)) / len(nodes)
    return found


def _line(axes: Axes, reading: Reading, x: Floats, core: float, style: dict[str, Any]) -> None:
    axes.plot(x, density(reading, x, core), color=style["color"], lw=1.1, ls=style["linestyle"])


def _ends(reading: Reading, core: float) -> tuple[float, float]:
    """The outermost nodes, on the axis."""
    nodes = np.array(reading.end["nodes"])
    return math.asinh(nodes.min() / core), math.asinh(nodes.max() / core)


def _limits(readings: Sequence[Reading], core: float) -> tuple[float, float]:
    """The outermost nodes of all lines with room for the whole of their Gaussians."""
    ends = [_ends(reading, core) for reading in readings]
    return min(low for low, _ in ends) - 4.0 * BANDWIDTH, max(high for _, high in ends) + 4.0 * BANDWIDTH


def _ticks(axes: Axes, low: float, high: float, core: float) -> None:
    """0, and numbers that begin with 1 or 3 from the core outwards."""
    first = math.floor(math.log10(core))
    last = math.ceil(math.log10(core * math.sinh(max(-low, high))))
    sizes = [digit * 10.0**power for power in range(first, last + 1) for digit in (1, 3)]
    values = [sign * size for sign in (-1, 1) for size in sizes if size >= core]
    ticks = [value for value in (0.0, *values) if low <= math.asinh(value / core) <= high]
    axes.set_xticks([math.asinh(tick / core) for tick in ticks], [f"{tick:g}".replace("-", "−") for tick in ticks])
    axes.set_xlim(low, high)
    log_scale(axes, "y")
    axes.set_xlabel("eigenvalue of the Hessian")


def _parameters(readings: Sequence[Reading]) -> int:
    return max(int(reading.end["num_parameters"]) for reading in readings)


def _caption(material: Material, mine: Sequence[Reading], core: float) -> str:
    row = mine[0].end
    starts, steps = np.shape(row["nodes"])
    return (
        f"Stochastic Lanczos quadrature with {steps} steps from each of {starts} random starts, one line per seed. The "
        f"axis is asinh(λ/{core:.2g}): linear near 0, logarithmic beyond ±{core:.2g}. So far from 0 the nodes do not "
        "tell where eigenvalues lie, since the weight of a node may lie anywhere between its neighbours: the peak at 0 "
        f"has no shape of its own. Each node is spread by a Gaussian of {BANDWIDTH} on this axis, in this figure only; "
        "strokes at the foot are the outermost nodes. The lowest height is a tenth of one in "
        f"{_parameters(mine):,} eigenvalues. "
        f"{material.facts(is_whole_spectrum, [place_of(reading) for reading in mine])}"
    )
