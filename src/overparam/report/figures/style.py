"""Colours, markers, sizes and axes of all figures, in one place."""

from __future__ import annotations  # matplotlib is loaded where something is drawn

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette and a grey, readable with every common colour vision; markers and dashes differ as well.
# There is a colour more than markers, so that a name past the last of them looks like no other.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[object, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1)), "-", "--")

RC: Mapping[str, Any] = {
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


@contextmanager
def styled() -> Iterator[None]:
    """In its block figures are made as all figures of the page are, whatever a user's matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(dict(RC))  # type: ignore[arg-type]
        yield


def log_scale(axes: Axes, *names: str) -> None:
    """Logarithmic axes with plain numbers at several ticks; other scripts than the page's are not set."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    from overparam.report.figures.log_ticks import ReadableLog

    for name in names:
        axis = axes.xaxis if name == "x" else axes.yaxis
        (axes.set_xscale if name == "x" else axes.set_yscale)("log")
        axis.set_major_locator(ReadableLog())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())  # a third of the time that a figure takes goes into minor ticks
        axes.autoscale_view(scalex=name == "x", scaley=name == "y")  # now that the locator knows a single place


def looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and dash of each named line, by its position."""
    parts = zip(names, cycle(COLOURS), cycle(MARKERS), cycle(DASHES), strict=False)
    return {name: {"color": c, "marker": m, "linestyle": d} for name, c, m, d in parts}
