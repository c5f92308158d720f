"""The table of runs and what an estimand takes from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from overparam.claims.comparisons import exponents, slopes_per_doubling
from overparam.claims.estimand import Concordance, Difference, Mean, Metric, Peak, PeakPlace, PerSeed, Slope
from overparam.claims.estimand import level_text as level_text
from overparam.claims.intervals import Values
from overparam.claims.kendall import within_levels
from overparam.claims.peak import first_below, held_out, most_prominent

FAILED = ("diverged", "collapsed")
EARLY_STOP = "early_stop_"  # metrics of the probe of that name


@dataclass(frozen=True)
class Sample:
    """What an estimand gives on a table: one value per seed, and which runs stood in the way.

    `groups` are the values of the two sides of a difference, empty for others. `unusable` counts the runs that ended
    well but lack a number: not measured, not finite, or not positive where a logarithm is taken. `undefined` counts the
    seeds that have all their numbers and yet no value, such as curves that never get to where a peak's place is counted
    from. `p` is of the estimand's own test, if it has one that is not a t test of the values.
    """

    values: Values
    groups: tuple[Values, ...]
    statuses: tuple[tuple[str, ...], ...]
    unusable: int = 0
    undefined: int = 0
    p: float | None = None


def rows_of(frame: pl.DataFrame, estimand: PerSeed) -> list[pl.DataFrame]:
    """The cells an estimand is about, one table per level; one cell compared with itself is one table."""
    match estimand:
        case Mean(at=at):
            points = [(at.arm, level_text(at.level))]
        case Difference(a=a, b=b):
            points = list(dict.fromkeys((p.arm, level_text(p.level)) for p in (a, b)))
        case Slope(arm=arm, levels=levels) | Peak(arm=arm, levels=levels) if levels is not None:
            points = [(arm, level_text(level)) for level in sorted(levels)]
        case Slope(arm=arm) | Concordance(arm=arm) | Peak(arm=arm) | PeakPlace(arm=arm):
            found = frame.filter((pl.col("arm") == arm) & pl.col("level_value").is_not_null())
            levels_there = found.select("level", "level_value").unique().sort("level_value")["level"]
            points = [(arm, level) for level in levels_there]
    return [frame.filter((pl.col("arm") == arm) & (pl.col("level") == level)) for arm, level in points]


def sample(frame: pl.DataFrame, estimand: PerSeed, *, ok_only: bool) -> Sample:
    """Per-seed values of an estimand, over the seeds for which every level has a usable run."""
    cells = rows_of(frame, estimand)
    needed = _metrics(estimand, len(cells))
    tables = [_cut(table, metrics) for table, metrics in zip(cells, needed, strict=True)]
    logarithmic = isinstance(estimand, Difference | Slope) and estimand.scale == "log"
    there = [_usable(metrics, logarithmic) for metrics in needed]
    ok = pl.col("status") == "ok"
    unusable = sum(len(t.filter(ok & ~usable)) for t, usable in zip(tables, there, strict=True))
    usable = [t.filter(usable & ok if ok_only else usable) for t, usable in zip(tables, there, strict=True)]
    seeds = sorted(set.intersection(*(set(t["seed"]) for t in usable))) if usable else []
    kept = [t.filter(pl.col("seed").is_in(seeds)).sort("seed") for t in usable]
    sides = [
        [t[metric].to_numpy().astype(np.float64) for metric in metrics] for t, metrics in zip(kept, needed, strict=True)
    ]
    statuses = tuple(tuple(t["status"]) for t in tables)
    if isinstance(estimand, Peak) and len(seeds) > 1 and len(sides) > 2:
        found = held_out(np.stack([side[0] for side in sides], axis=1) * (-1.0 if estimand.trough else 1.0))
        return Sample(found.rise if found.weaker == "rise" else found.fall, (), statuses, unusable, p=found.p)
    values, groups = _values(estimand, sides, [t["level_value"] for t in kept])
    finite = values[np.isfinite(values)]
    return Sample(finite, groups, statuses, unusable, undefined=len(seeds) - len(finite))


def _cut(table: pl.DataFrame, metrics: Sequence[Metric]) -> pl.DataFrame:
    """A run that was still at its best when it ended has no early-stopped value: its status is "censored"."""
    early = any(metric.startswith(EARLY_STOP) for metric in metrics)
    if not early or f"{EARLY_STOP}censored" not in table.columns:
        return table
    cut = (pl.col("status") == "ok") & (pl.col(f"{EARLY_STOP}censored") == 1.0)
    return table.with_columns(pl.when(cut).then(pl.lit("censored")).otherwise(pl.col("status")).alias("status"))


def _metrics(estimand: PerSeed, num_tables: int) -> list[tuple[Metric, ...]]:
    """What is read from each table."""
    match estimand:
        case Concordance(metric=metric, other=str(other)) | PeakPlace(metric=metric, other=str(other)):
            return [(metric, other)] * num_tables
        case Difference(metric=metric, other=other):
            right = metric if other is None else other
            return [(metric, right)] if num_tables == 1 else [(metric,), (right,)]
        case Mean(metric=metric) | Slope(metric=metric) | Peak(metric=metric) | PeakPlace(metric=metric):
            return [(metric,)] * num_tables


def _usable(metrics: Sequence[Metric], logarithmic: bool) -> pl.Expr:
    there = pl.all_horizontal(pl.col(metric).is_not_null() & pl.col(metric).is_finite() for metric in metrics)
    return there & pl.all_horizontal(pl.col(metric) > 0 for metric in metrics) if logarithmic else there


def _values(
    estimand: PerSeed, sides: Sequence[Sequence[Values]], levels: Sequence[pl.Series]
) -> tuple[Values, tuple[Values, ...]]:
    """Values per seed, and the two groups of a difference, from the columns of each table."""
    first = [side[0] for side in sides]
    match estimand:
        case Mean():
            return first[0], ()
        case Difference(scale=scale):
            both = [column for side in sides for column in side]  # from two cells, or two metrics of one
            groups = tuple(np.log(column) for column in both) if scale == "log" else tuple(both)
            return groups[0] - groups[1], groups
        case Concordance():
            return within_levels(first, [side[1] for side in sides]), ()
        case Slope(scale=scale):
            if len(first) < 2 or len(first[0]) == 0:
                return np.empty(0), ()
            fit = exponents if scale == "log" else slopes_per_doubling
            return fit(_numbers(levels), np.stack(first, axis=1)), ()
        case Peak():
            return np.empty(0), ()  # without three levels and two seeds
        case PeakPlace():
            return _places(estimand, sides, levels), ()


def _numbers(levels: Sequence[pl.Series]) -> Values:
    return np.array([float(each[0]) for each in levels])


def _places(estimand: PeakPlace, sides: Sequence[Sequence[Values]], levels: Sequence[pl.Series]) -> Values:
    """Doublings from the reference level to the peak of each seed; NaN where there is no reference level."""
    if len(sides) < 3 or len(sides[0][0]) == 0:
        return np.empty(0)
    widths = _numbers(levels)
    curves = np.stack([side[0] for side in sides], axis=1) * (-1.0 if estimand.trough else 1.0)
    _, peak, _ = most_prominent(curves)
    if estimand.other is None:
        origin = np.full(len(curves), estimand.reaches)
    else:
        origin = first_below(widths, -np.stack([side[1] for side in sides], axis=1), -estimand.reaches)
    places: Values = np.log2(widths[peak] / origin)
    return places


def failure_rates(found: Sample) -> list[float]:
    """Share of diverged or collapsed runs at each level."""
    return [sum(s in FAILED for s in level) / max(1, len(level)) for level in found.statuses]
