"""What figures of measurements share: the material they draw from, the facts their captions owe, bars and keys."""

from __future__ import annotations  # matplotlib is loaded where something is drawn

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from overparam.claims.estimand import level_text
from overparam.claims.intervals import t_interval
from overparam.probes.probe import Probe
from overparam.probes.reading import Reading
from overparam.studies.study import Design

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Place = tuple[str, str, int]  # arm, level, seed
PLACED = ("arm", "level", "level_value", "seed", "status")
Wanted = Callable[[Probe], bool]


@dataclass(frozen=True)
class Drawing:
    """A figure with its name, what it shows for those who cannot see it, and its caption."""

    name: str
    alt: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Material:
    """What there is to draw of one design: the table of its runs and the readings of its probes."""

    factor: str
    design: Design
    frame: pl.DataFrame
    readings: tuple[Reading, ...]

    @property
    def titles(self) -> dict[str, str]:
        """Titles of the arms by name, in the design's order."""
        return {arm.name: arm.title for arm in self.design.arms}

    def measured_by(self, wanted: Wanted) -> Material:
        """What the wanted probes found, and of every run its place, how it ended and its train loss."""
        columns = [name for each in self.design.probings if wanted(each.probe) for name in each.probe.columns]
        readings = tuple(each for each in self.readings if wanted(each.probe))
        return replace(self.with_columns(["train_loss", *columns]), readings=readings)

    def with_columns(self, columns: Sequence[str]) -> Material:
        """The same with no more of the table than where each run stands, how it ended, and these columns if there."""
        names = [name for name in dict.fromkeys([*PLACED, *columns]) if name in self.frame.columns]
        return replace(self, frame=self.frame.select(names))

    def readings_of(self, wanted: Wanted) -> list[Reading]:
        """Readings of the wanted probes, of the runs that ended ok."""
        ok = {place for place, status in self._statuses().items() if status == "ok"}
        return [r for r in self.readings if wanted(r.probe) and place_of(r) in ok]

    def arms_of(self, readings: Sequence[Reading]) -> list[str]:
        """Arms that have readings, in the design's order."""
        there = {reading.arm for reading in readings}
        return [name for name in self.titles if name in there]

    def facts(self, wanted: Wanted, drawn: Collection[Place], there: Collection[Place] | None = None) -> str:
        """How many seeds are drawn, what was measured, and which runs are not `there`: what every caption says."""
        counts = Counter((arm, level) for arm, level, _ in set(drawn)).values()
        fewest, most = min(counts), max(counts)
        seeds = f"{most} seed{'s' if most > 1 else ''}" if fewest == most else f"{fewest} to {most} seeds"
        sizes = sorted({each.probe.num_examples for each in self.design.probings if wanted(each.probe)})
        examples = " or ".join(f"{size:,}" for size in sizes)
        measured = f", measured on the first {examples} training examples" if any(sizes) else ""
        left_out = self._left_out(wanted, drawn if there is None else there)
        return f"n = {seeds}{measured}.{left_out}"

    def _left_out(self, wanted: Wanted, there: Collection[Place]) -> str:
        cells = (cell for cell in self.design.cells() if any(wanted(probe) for probe in self.design.probes_of(cell)))
        gone = {(cell.arm, level_text(cell.level), cell.seed) for cell in cells} - set(there)
        measured = {place_of(reading) for reading in self.readings if wanted(reading.probe)}
        statuses = self._statuses()
        unusable = {each: "without a value" if each in measured else "not measured" for each in gone}
        words = Counter(unusable[each] if (word := statuses[each]) == "ok" else word for each in gone & set(statuses))
        said = ", ".join(f"{count} {word}" for word, count in sorted(words.items()))
        return f" Runs left out: {said}." if said else ""

    def _statuses(self) -> dict[Place, str]:
        rows = self.frame.select("arm", "level", "seed", "status").iter_rows()
        return {(arm, level, seed): status for arm, level, seed, status in rows}


def place_of(reading: Reading) -> Place:
    """Where a reading stands in its design."""
    return reading.arm, reading.level, reading.seed


def levels_of(readings: Sequence[Reading]) -> list[str]:
    """The levels of the readings, each once, in their order."""
    return list(dict.fromkeys(reading.level for reading in readings))


def has_logarithm(level: float | str | None) -> bool:
    """Whether a level has a place on a logarithmic axis: no name has one, and no number that is not positive."""
    return isinstance(level, int | float) and level > 0


def panels(
    rows: int, columns: int, size: tuple[float, float], *, sharex: bool = False, sharey: bool | Literal["row"] = False
) -> tuple[Figure, list[list[Axes]]]:
    """A figure with rows and columns of panels, each of one size in inches, and room for a key below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * size[0], rows * size[1] + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    return figure, grid.tolist()


def key(figure: Figure, styles: dict[str, dict[str, Any]], title: str | None = None) -> None:
    """One key for all panels, in as many columns as the figure is wide enough for."""
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], label=label, **style) for label, style in styles.items()]
    inches = 0.7 + 0.08 * max(map(len, styles))  # of one column: line and label
    columns = min(len(lines), max(1, int(figure.get_figwidth() / inches)))
    figure.legend(handles=lines, loc="outside lower center", ncols=columns, title=title, handlelength=3.0)


def geometric(values: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean with the 95 % t interval of the logarithms; NaN bounds below two values.

    >>> geometric([1.0, 100.0])[0]
    10.0
    """
    found = t_interval(np.log10(np.array(values)))
    middle, low, high = (float(10.0**x) for x in (found.estimate, found.lower, found.upper))
    return middle, low, high


def bars(axes: Axes, x: Sequence[float], means: Sequence[tuple[float, float, float]], style: dict[str, Any]) -> None:
    """A line through means with their intervals; a mean of one value has none."""
    y = np.array([middle for middle, _, _ in means])
    reach = np.array([[m - low, high - m] if math.isfinite(low) else [0.0, 0.0] for m, low, high in means]).T
    look = {"color": style["color"], "marker": style["marker"], "ls": style["linestyle"]}
    axes.errorbar(x, y, yerr=reach, ms=4.5, lw=1.2, capsize=2, elinewidth=1.0, **look)
