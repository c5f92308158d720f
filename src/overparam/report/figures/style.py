"""Colours, markers, sizes and axes of all figures, in one place."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

# Okabe and Ito's palette and a grey, readable with every common colour vision; markers and dashes differ as well.
# There is a colour more than markers, so that a name past the last of them looks like no other.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[object, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1)), "-", "--")

RC: Mapping[str, object] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "overparam",
    "svg.fonttype": "path",
    "text.parse_math": False,
}


def styled() -> AbstractContextManager[None]:
    """In its block figures are made as all figures of the page are."""
    return matplotlib.rc_context(dict(RC))  # type: ignore[arg-type]


class ReadableLog(LogLocator):
    """Ticks at powers of ten; where fewer than three are in view, at 3s, at 2s and 5s or at more between them too."""

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        low, high = sorted((vmin, vmax))
        if low <= 0.0 or math.floor(math.log10(high)) - math.ceil(math.log10(low)) >= 2:
            return list(super().tick_values(vmin, vmax))
        powers = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        for digits in ((1, 3), (1, 2, 5), range(1, 10)):
            ticks = [tick for power in powers for digit in digits if low <= (tick := float(power * digit)) <= high]
            if len(ticks) >= 3:
                return ticks
        return list(MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high))


def log_scale(axes: Axes, *names: str) -> None:
    """Logarithmic axes with plain numbers at several ticks; other scripts than the page's are not set."""
    for name in names:
        axis = axes.xaxis if name == "x" else axes.yaxis
        (axes.set_xscale if name == "x" else axes.set_yscale)("log")
        axis.set_major_locator(ReadableLog())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())  # a third of the time that a figure takes goes into minor ticks


def looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and dash of each named line, by its position."""
    parts = zip(names, cycle(COLOURS), cycle(MARKERS), cycle(DASHES), strict=False)
    return {name: {"color": c, "marker": m, "linestyle": d} for name, c, m, d in parts}
