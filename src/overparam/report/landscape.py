"""Figures of what probes found: curvature against the swept factor, noise, spectra, surfaces, curvature in time."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from overparam.analyse.frame import Reading
from overparam.analyse.intervals import t_interval
from overparam.report.style import COLOURS, RC, log_scale, looks
from overparam.specs.probe import Eigenvalues, Noise, SpectralDensity, Surface
from overparam.specs.study import Design

BANDWIDTH = 0.4  # of the density, in units of ln λ where |λ| is large against CORE
CORE = 1e-3  # eigenvalues below it are drawn on a linear scale


@dataclass(frozen=True)
class Drawing:
    """A figure with its name, what it shows for those who cannot see it, and its caption."""

    name: str
    alt: str
    caption: str
    figure: Figure


def landscape_drawings(design: Design, frame: pl.DataFrame, readings: Sequence[Reading]) -> Iterator[Drawing]:
    """Every figure for which there are measurements."""
    titles = {arm.name: arm.title for arm in design.arms}
    if "lambda_max" in frame.columns and frame["lambda_max"].is_not_null().any():
        yield _curvature(titles, frame)
    for maker in (_noise, _spectra, _surfaces, _along):
        drawing = maker(titles, readings)
        if drawing is not None:
            yield drawing


def _figure(width: float, height: float, panels: int) -> tuple[Figure, list[Axes]]:
    with matplotlib.rc_context(dict(RC)):  # type: ignore[arg-type]
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, list(np.atleast_1d(figure.subplots(1, panels)).flat)


def _styled(draw: Callable[[], None]) -> None:
    with matplotlib.rc_context(dict(RC)):  # type: ignore[arg-type]
        draw()


def _legend(figure: Figure, styles: dict[str, dict[str, Any]]) -> None:
    """One key for all panels."""
    keys = [Line2D([], [], label=label, **style) for label, style in styles.items()]
    figure.legend(handles=keys, loc="outside lower center", ncols=min(len(keys), 6))


def geometric(values: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean with the 95 % t interval of the logarithms; NaN bounds below two values.

    >>> geometric([1.0, 100.0])[0]
    10.0
    """
    found = t_interval(np.log10(np.array(values)))
    middle, low, high = (float(10.0**x) for x in (found.estimate, found.lower, found.upper))
    return middle, low, high


def _curvature(titles: dict[str, str], frame: pl.DataFrame) -> Drawing:
    """λmax and λmax per loss against the level, and λmax against the train loss of every run."""
    ok = frame.filter((pl.col("status") == "ok") & (pl.col("lambda_max") > 0) & pl.col("level_value").is_not_null())
    figure, axes = _figure(11.5, 4.3, 3)

    def draw() -> None:
        for place, metric in zip(axes[:2], ("lambda_max", "lambda_max_per_loss"), strict=True):
            _against_level(place, titles, ok, metric)
        _against_loss(axes[2], titles, ok)
        axes[0].set_title("λmax")
        axes[1].set_title("λmax / train loss")
        axes[2].set_title("λmax by train loss, every run")
        _legend(figure, {titles[a]: style for a, style in looks(list(titles)).items() if a in set(ok["arm"])})

    _styled(draw)
    caption = (
        "Geometric means over seeds with 95 % t intervals of the logarithms; faint dots are runs. If sharpness were "
        "only train loss, the middle panel would be flat and the right one a single line."
    )
    return Drawing("curvature", "λmax, and λmax divided by train loss, against the swept factor", caption, figure)


def _against_level(axes: Axes, titles: dict[str, str], ok: pl.DataFrame, metric: str) -> None:
    for arm, style in looks(list(titles)).items():
        mine = ok.filter((pl.col("arm") == arm) & (pl.col(metric) > 0))
        levels = sorted(mine["level_value"].unique())
        means = [geometric(mine.filter(pl.col("level_value") == level)[metric].to_list()) for level in levels]
        if not levels:
            continue
        _bars(axes, levels, means, style)
        axes.scatter(mine["level_value"], mine[metric], s=7, color=style["color"], alpha=0.3, linewidths=0)
    levels = sorted(ok["level_value"].unique())
    log_scale(axes, "x", "y")
    axes.set_xticks(levels, [f"{level:g}" for level in levels])
    axes.set_xlabel("batch size")


def _bars(axes: Axes, x: Sequence[float], means: Sequence[tuple[float, float, float]], style: dict[str, Any]) -> None:
    y = np.array([middle for middle, _, _ in means])
    reach = np.array([[m - low, high - m] if math.isfinite(low) else [0.0, 0.0] for m, low, high in means]).T
    look = {"color": style["color"], "marker": style["marker"], "ls": style["linestyle"]}
    axes.errorbar(x, y, yerr=reach, ms=4.5, lw=1.2, capsize=2, elinewidth=1.0, **look)


def _against_loss(axes: Axes, titles: dict[str, str], ok: pl.DataFrame) -> None:
    for arm, style in looks(list(titles)).items():
        mine = ok.filter((pl.col("arm") == arm) & (pl.col("train_loss") > 0))
        axes.scatter(mine["train_loss"], mine["lambda_max"], s=16, color=style["color"], marker=style["marker"])
    log_scale(axes, "x", "y")
    axes.set_xlabel("train loss")


def _noise(titles: dict[str, str], readings: Sequence[Reading]) -> Drawing | None:
    """Loss increase against σ, one line per level, one panel for each of the two first arms measured."""
    mine = [r for r in readings if isinstance(r.probe, Noise) and r.probe.scale == "absolute"]
    arms = list(dict.fromkeys(r.arm for r in mine if r.arm in ("equal_epochs", "equal_loss")))
    if not arms:
        return None
    figure, axes = _figure(4.8 * len(arms) + 1.0, 4.2, len(arms))
    levels = list(dict.fromkeys(r.level for r in mine if r.arm in arms))

    def draw() -> None:
        for place, arm in zip(axes, arms, strict=True):
            for level, style in looks(levels).items():
                _noise_line(place, [r for r in mine if (r.arm, r.level) == (arm, level)], style)
            log_scale(place, "x", "y")
            place.set_title(titles[arm])
            place.set_xlabel("σ of the weight noise")
        axes[0].set_ylabel("increase of the train loss")
        _legend(figure, looks(levels))

    _styled(draw)
    caption = (
        "Absolute increase of the train loss under Gaussian weight noise, the mean over draws; lines are geometric "
        "means over seeds with 95 % t intervals of the logarithms, over the seeds with a positive increase. An "
        "absolute scale: percent of a base loss near zero compares the bases as much as the basins."
    )
    return Drawing("noise", "Loss increase under weight noise against its standard deviation", caption, figure)


def _noise_line(axes: Axes, readings: Sequence[Reading], style: dict[str, Any]) -> None:
    if not readings:
        return
    points = []
    for sigma, name in zip(readings[0].rows[-1]["sigma"], readings[0].probe.metrics, strict=True):
        values = [value for r in readings if (value := r.rows[-1][name]) is not None and value > 0]
        if values:
            points.append((sigma, geometric(values)))
    if points:
        _bars(axes, [sigma for sigma, _ in points], [mean for _, mean in points], style)


def _spectra(titles: dict[str, str], readings: Sequence[Reading]) -> Drawing | None:
    """Densities on an asinh axis, one line per run."""
    mine = [r for r in readings if isinstance(r.probe, SpectralDensity)]
    if not mine:
        return None
    levels = list(dict.fromkeys(r.level for r in mine))
    figure, axes = _figure(8.0, 4.2, 1)

    def draw() -> None:
        for level, style in looks(levels).items():
            for reading in (r for r in mine if r.level == level):
                _spectrum(axes[0], reading, style)
        ticks = [-10.0, -1.0, -0.1, -0.01, 0.0, 0.01, 0.1, 1.0, 10.0, 100.0]
        axes[0].set_xticks([math.asinh(t / CORE) for t in ticks], [f"{t:g}" for t in ticks])
        log_scale(axes[0], "y")
        axes[0].set_ylim(1e-7, 10.0)
        axes[0].set_xlabel("eigenvalue of the Hessian (linear near 0, logarithmic beyond)")
        axes[0].set_ylabel("density per unit of the axis")
        _legend(figure, {level: {"color": style["color"]} for level, style in looks(levels).items()})

    _styled(draw)
    caption = (
        f"Stochastic Lanczos quadrature, one line per seed; each node is spread by a Gaussian of {BANDWIDTH} on the "
        f"axis asinh(λ/{CORE:g}). Nodes and weights are in the store; the smoothing is this figure's alone."
    )
    return Drawing("spectra", "Spectral densities of the Hessian", caption, figure)


def _spectrum(axes: Axes, reading: Reading, style: dict[str, Any]) -> None:
    row = reading.rows[-1]
    nodes, weights = np.arcsinh(np.array(row["nodes"]) / CORE), np.array(row["weights"])
    x = np.linspace(math.asinh(-10.0 / CORE), math.asinh(100.0 / CORE), 600)
    peaks = np.exp(-0.5 * ((x[:, None, None] - nodes) / BANDWIDTH) ** 2) / (BANDWIDTH * math.sqrt(2 * math.pi))
    axes.plot(x, (weights * peaks).sum((1, 2)) / len(nodes), color=style["color"], lw=1.1, ls=style["linestyle"])


def _surfaces(titles: dict[str, str], readings: Sequence[Reading]) -> Drawing | None:
    """The planes of the first seed, side by side on one scale."""
    mine = [r for r in readings if isinstance(r.probe, Surface)]
    first = [r for r in mine if r.seed == mine[0].seed][:2]
    if len(first) < 2:
        return None
    figure, axes = _figure(9.6, 4.3, 2)
    losses = [np.log10(np.maximum(np.array(r.rows[-1]["losses"], dtype=np.float64), 1e-12)) for r in first]
    finite = np.concatenate([each[np.isfinite(each)] for each in losses])
    levels = np.linspace(float(finite.min()), float(finite.max()), 16)

    def draw() -> None:
        for place, reading, loss in zip(axes, first, losses, strict=True):
            ticks = reading.rows[-1]["coordinates"]
            drawn = place.contourf(ticks, ticks, np.ma.masked_invalid(loss).T, levels=levels, cmap="viridis")
            place.plot([0], [0], marker="+", color="white", ms=9)
            place.set_title(f"batch size {reading.level}")
            place.set_aspect("equal")
            place.grid(visible=False)
        figure.colorbar(drawn, ax=axes, label="log₁₀ train loss", shrink=0.85)

    _styled(draw)
    caption = (
        f"Train loss on a plane through the trained network (+), seed {first[0].seed}, along two random directions "
        "that are scaled filter by filter to the weights; both panels share the colours. One plane of many."
    )
    return Drawing("surfaces", "Two loss surfaces side by side", caption, figure)


def _along(titles: dict[str, str], readings: Sequence[Reading]) -> Drawing | None:
    """lr·λmax during training against the stability bound of momentum gradient descent."""
    mine = [r for r in readings if isinstance(r.probe, Eigenvalues) and len(r.probe.at) > 1]
    if not mine:
        return None
    figure, axes = _figure(9.6, 4.2, 2)
    levels = list(dict.fromkeys(r.level for r in mine))
    beta = getattr(mine[0].spec.train.optimizer, "momentum", 0.0)

    def draw() -> None:
        for level, style in looks(levels).items():
            for reading in (r for r in mine if r.level == level):
                epochs = [row["epoch"] for row in reading.rows]
                tops = [row["lambda_max"] for row in reading.rows]
                products = [row["lr"] * top for row, top in zip(reading.rows, tops, strict=True)]
                for place, values in zip(axes, (tops, products), strict=True):
                    place.plot(epochs, values, color=style["color"], marker=style["marker"], ms=4, lw=1.1)
        axes[1].axhline(2.0 * (1.0 + beta), color=COLOURS[-1], lw=0.8, ls="--")
        for place, title in zip(axes, ("λmax", f"lr · λmax; dashed: 2(1 + β) = {2 * (1 + beta):g}"), strict=True):
            log_scale(place, "y")
            place.set_title(title)
            place.set_xlabel("epoch")
        _legend(figure, looks(levels))

    _styled(draw)
    caption = (
        "λmax along training, one line per seed, and times the learning rate of that step: full-batch momentum descent "
        "is stable on a quadratic below the dashed line (β is the momentum). Small batches may stay well below it."
    )
    return Drawing("along", "Curvature along training", caption, figure)
