"""Colours, markers and sizes of all figures, in one place."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

# Okabe and Ito's palette, readable with every common colour vision; markers and dashes differ as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
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


def log_scale(axes: Axes, *names: str) -> None:
    """Logarithmic axes with plain numbers at the powers of ten; other scripts than the page's are not set."""
    for name in names:
        axis = axes.xaxis if name == "x" else axes.yaxis
        (axes.set_xscale if name == "x" else axes.set_yscale)("log")
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def looks(names: list[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and dash of each named line, by its position."""
    parts = zip(names, cycle(COLOURS), cycle(MARKERS), cycle(DASHES), strict=False)
    return {name: {"color": c, "marker": m, "linestyle": d} for name, c, m, d in parts}
