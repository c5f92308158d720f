"""The table of runs and what an estimand takes from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from overparam.claims.estimand import Metric, Peak, PerSeed, level_text
from overparam.claims.intervals import Values
from overparam.claims.peak import held_out

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
    points = list(dict.fromkeys((point.arm, level_text(point.level)) for point in estimand.points))
    if not points:  # all levels that are numbers
        (arm,) = estimand.arms
        found = frame.filter((pl.col("arm") == arm) & pl.col("level_value").is_not_null())
        points = [(arm, level) for level in found.select("level", "level_value").unique().sort("level_value")["level"]]
    return [frame.filter((pl.col("arm") == arm) & (pl.col("level") == level)) for arm, level in points]


def sample(frame: pl.DataFrame, estimand: PerSeed, *, ok_only: bool) -> Sample:
    """Per-seed values of an estimand, over the seeds for which every level has a usable run."""
    cells = rows_of(frame, estimand)
    needed = estimand.read_from(len(cells))
    tables = [_cut(table, metrics) for table, metrics in zip(cells, needed, strict=True)]
    there = [_usable(metrics, estimand.logarithmic) for metrics in needed]
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
    values = estimand.values(sides, [float(t["level_value"][0]) for t in kept if len(t) and estimand.arms])
    finite = values[np.isfinite(values)]
    return Sample(finite, estimand.groups(sides), statuses, unusable, undefined=len(seeds) - len(finite))


def _cut(table: pl.DataFrame, metrics: Sequence[Metric]) -> pl.DataFrame:
    """A run that was still at its best when it ended has no early-stopped value: its status is "censored"."""
    early = any(metric.startswith(EARLY_STOP) for metric in metrics)
    if not early or f"{EARLY_STOP}censored" not in table.columns:
        return table
    cut = (pl.col("status") == "ok") & (pl.col(f"{EARLY_STOP}censored") == 1.0)
    return table.with_columns(pl.when(cut).then(pl.lit("censored")).otherwise(pl.col("status")).alias("status"))


def _usable(metrics: Sequence[Metric], logarithmic: bool) -> pl.Expr:
    there = pl.all_horizontal(pl.col(metric).is_not_null() & pl.col(metric).is_finite() for metric in metrics)
    return there & pl.all_horizontal(pl.col(metric) > 0 for metric in metrics) if logarithmic else there


def failure_rates(found: Sample) -> list[float]:
    """Share of diverged or collapsed runs at each level."""
    return [sum(s in FAILED for s in level) / max(1, len(level)) for level in found.statuses]
