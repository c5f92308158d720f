"""λmax at the end of training: against the swept factor, divided by what might explain it, and by train loss."""

from __future__ import annotations  # matplotlib is loaded where something is drawn

from typing import TYPE_CHECKING

import polars as pl

from overparam.claims.estimand import level_text
from overparam.probes.probe import Probe
from overparam.report.figures.drawing import Drawing, Material, bars, geometric, key, panels
from overparam.report.figures.style import log_scale, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = {
    "lambda_max": "λmax",
    "lambda_max_per_loss": "λmax / loss",
    "lambda_max_per_softmax_variance": "λmax / softmax variance",
}
LOSS = (
    " The loss it is divided by is the mean over the measured examples; the train loss of the last panel is that of "
    "all training examples. The curvature of cross-entropy goes as p(1 − p): with p = exp(−L) for the true class that "
    "grows less than in proportion to the loss L, so that dividing by the loss corrects too much where it is high."
)
VARIANCE = (
    " Softmax variance is the mean of Σ p(1 − p) over the classes, the trace of the loss's Hessian in the outputs: a "
    "flat line in its panel is what the confidence of the outputs alone would give."
)


def curvature(material: Material) -> Drawing | None:
    """λmax and its quotients against the level, and λmax against the train loss of every run."""
    frame = material.frame
    if "lambda_max" not in frame.columns:
        return None
    ok = frame.filter((pl.col("status") == "ok") & _positive("lambda_max"))
    if ok.is_empty():
        return None
    metrics = [name for name in PANELS if name in ok.columns and not ok.filter(_positive(name)).is_empty()]
    rows, columns = (2, 2) if len(metrics) == 3 else (1, len(metrics) + 1)
    figure, grid = panels(rows, columns, (9.6 / columns, 3.6))
    *places, last = [axes for row in grid for axes in row]
    for axes, metric in zip(places, metrics, strict=True):
        _against_level(axes, material, ok.filter(_positive("level_value") & _positive(metric)), metric)
    _against_loss(last, material, ok)
    styles = looks(list(material.titles))
    key(figure, {title: styles[arm] for arm, title in material.titles.items() if arm in set(ok["arm"])})
    alt = f"{', '.join(PANELS[m] for m in metrics)} against {material.factor}, and λmax against train loss"
    return Drawing("curvature", alt, _caption(material, ok, metrics), figure)


def is_final_curvature(probe: Probe) -> bool:
    """Largest eigenvalues at the end of a run."""
    return "lambda_max" in probe.columns


def _positive(name: str) -> pl.Expr:
    """What has a place on a log axis; NaN would pass for larger than 0."""
    return pl.col(name).is_finite() & (pl.col(name) > 0)


def _against_level(axes: Axes, material: Material, runs: pl.DataFrame, metric: str) -> None:
    for arm, style in looks(list(material.titles)).items():
        mine = runs.filter(pl.col("arm") == arm)
        levels = sorted(mine["level_value"].unique())
        if levels:
            means = [geometric(mine.filter(pl.col("level_value") == level)[metric].to_list()) for level in levels]
            bars(axes, levels, means, style)
            axes.scatter(mine["level_value"], mine[metric], s=7, color=style["color"], alpha=0.3, linewidths=0)
    log_scale(axes, "x", "y")
    levels = sorted(runs["level_value"].unique())
    axes.set_xticks(levels, [level_text(level) for level in levels])
    axes.set_xlabel(material.factor)
    axes.set_title(PANELS[metric])


def _against_loss(axes: Axes, material: Material, ok: pl.DataFrame) -> None:
    for arm, style in looks(list(material.titles)).items():
        mine = ok.filter((pl.col("arm") == arm) & _positive("train_loss"))
        axes.scatter(mine["train_loss"], mine["lambda_max"], s=16, color=style["color"], marker=style["marker"])
    log_scale(axes, "x", "y")
    axes.set_xlabel("train loss")
    axes.set_title("λmax by train loss, every run")


def _caption(material: Material, ok: pl.DataFrame, metrics: list[str]) -> str:
    others = list(dict.fromkeys(ok.filter(~_positive("level_value").fill_null(False))["level"]))
    elsewhere = (
        f" Levels that are not positive numbers are in the last panel only: {', '.join(others)}." if others else ""
    )
    divisors = {"lambda_max_per_loss": LOSS, "lambda_max_per_softmax_variance": VARIANCE}
    return (
        "Geometric means over seeds with 95 % t intervals of the logarithms; faint dots are runs."
        f"{''.join(divisors.get(metric, '') for metric in metrics)} If sharpness were only train loss, the runs of the "
        "last panel would lie on a single line."
        f"{elsewhere} "
        f"{material.facts(is_final_curvature, set(ok.select('arm', 'level', 'seed').iter_rows()))}"
    )
