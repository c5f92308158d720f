"""Masks by density: where the weights are left, and what masks of two seeds share beyond chance."""

from __future__ import annotations  # matplotlib is loaded where something is drawn

from collections.abc import Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

from overparam.claims.intervals import t_interval
from overparam.probes.mask_profile import MaskProfile
from overparam.probes.measurement import Look
from overparam.probes.probe import Probe
from overparam.probes.reading import Reading
from overparam.report.figures.drawing import Drawing, Material, bars, levels_of, panels, place_of
from overparam.report.figures.style import log_scale, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CAPTION = (
    "Left: share of the weights that each layer keeps, mean over seeds, of a network's first arm; dashed: of all "
    "layers; a layer with nothing left has no point. Right: weights that a mask shares with that of the same run under "
    "another seed, over what masks with the same counts in each layer and random places share on average (dashed: as "
    "many); of the first arm also over what masks share that keep the count of each input, which tells a common choice "
    "of inputs from a common choice of weights. Means with 95 % t intervals from three pairs on; each seed is compared "
    "with one and the same, so that there is a pair less than seeds, and pairs are not independent."
)


def masks(material: Material) -> Drawing | None:
    """A row of panels for each network: density by layer, and overlap over chance."""
    mine = material.readings_of(is_mask_profile)
    if not mine:
        return None
    networks = {arm.name: arm.group or arm.name for arm in material.design.arms}
    rows = [[r for r in mine if networks[r.arm] == each] for each in dict.fromkeys(networks[r.arm] for r in mine)]
    figure, grid = panels(len(rows), 2, (4.8, 3.7))
    for (left, right), readings in zip(grid, rows, strict=True):
        first, *others = material.arms_of(readings)
        _densities(left, [r for r in readings if r.arm == first])
        lines = {material.titles[arm]: (arm, "mask_excess") for arm in (first, *others)}
        lines[f"{material.titles[first]}, inputs kept"] = (first, "mask_excess_by_inputs")
        for (title, style), (arm, metric) in zip(looks(list(lines)).items(), lines.values(), strict=True):
            _shared(right, [r for r in readings if r.arm == arm], metric, title, style)
        right.axhline(1.0, color="#000000", lw=0.8, ls="--")
        for axes, title in ((left, f"{material.titles[first]}: layers, %"), (right, "shared weights / chance")):
            axes.set_title(title)
            axes.set_xlabel("remaining weights, %")
            axes.legend(fontsize="x-small")
    alt = "Density of each layer, and weights shared by two seeds over chance, against the density of all layers"
    facts = material.facts(is_mask_profile, [place_of(reading) for reading in mine])
    return Drawing("masks", alt, f"{CAPTION}{_distances(material, mine)} {facts}", figure)


def is_mask_profile(probe: Probe) -> bool:
    """What each layer keeps, and what two seeds share."""
    return isinstance(probe, MaskProfile)


def _densities(axes: Axes, readings: Sequence[Reading]) -> None:
    of_level = _by_level(readings)
    places = [100 * mean(row["density"] for row in rows) for rows in of_level]
    axes.plot(places, places, color="#000000", lw=0.8, ls="--")
    for index, (layer, style) in enumerate(looks(of_level[0][0]["layers"]).items()):
        kept = [100 * mean(row["densities"][index] for row in rows) for rows in of_level]
        drawn = [(place, share) for place, share in zip(places, kept, strict=True) if share > 0]
        axes.plot([place for place, _ in drawn], [share for _, share in drawn], label=layer, ms=4.5, lw=1.2, **style)
    log_scale(axes, "x", "y")


def _by_level(readings: Sequence[Reading]) -> list[list[Look]]:
    return [[r.end for r in readings if r.level == level] for level in levels_of(readings)]


def _shared(axes: Axes, readings: Sequence[Reading], metric: str, title: str, style: dict[str, Any]) -> None:
    found: dict[float, tuple[float, float, float]] = {}
    for rows in _by_level(readings):
        if values := [row[metric] for row in rows if row[metric] is not None]:
            interval = t_interval(values)
            bounds = (interval.lower, interval.upper) if len(values) > 2 else (float("nan"), float("nan"))
            found[100 * mean(row["density"] for row in rows)] = (interval.estimate, *bounds)
    if found:
        bars(axes, list(found), list(found.values()), style)
    axes.plot([], [], label=title, ms=4.5, lw=1.2, **style)
    log_scale(axes, "x")


def _distances(material: Material, readings: Sequence[Reading]) -> str:
    """How far from chance the pairs of each arm lie, in standard deviations under the null."""
    found: dict[str, list[float]] = {}
    for reading in readings:
        if (z := reading.end["mask_overlap_z"]) is not None:
            found.setdefault(reading.arm, []).append(z)
    said = [f"{material.titles[arm]} {min(z):.1f} to {max(z):.1f}" for arm, z in found.items()]
    return f" Distances from chance in standard deviations: {'; '.join(said)}." if said else ""
