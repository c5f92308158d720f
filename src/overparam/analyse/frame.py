"""The table of runs and what an estimand takes from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from overparam.analyse.comparisons import slopes_per_doubling
from overparam.analyse.kendall import within_levels
from overparam.specs.probe import Measured
from overparam.specs.run import RunSpec
from overparam.specs.study import Concordance, Difference, Slope

FAILED = ("diverged", "collapsed")


def level_text(level: float | str) -> str:
    """How a level is written everywhere.

    >>> level_text(32.0), level_text("full lr 0.1")
    ('32', 'full lr 0.1')
    """
    return level if isinstance(level, str) else format(level, "g")


@dataclass(frozen=True)
class Reading:
    """What a probe found of the run in one cell, a row for each step it looked at."""

    arm: str
    level: str
    seed: int
    spec: RunSpec
    probe: Measured
    rows: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Sample:
    """What an estimand gives on a table: one value per seed, and which runs stood in the way.

    `groups` are the values of the two sides of a difference, empty for others. `unusable` counts the runs that ended
    well but have no value: not measured, not finite, or not positive where a logarithm is taken.
    """

    values: NDArray[np.float64]
    groups: tuple[NDArray[np.float64], ...]
    statuses: tuple[tuple[str, ...], ...]
    unusable: int = 0


def rows_of(frame: pl.DataFrame, estimand: Difference | Slope | Concordance) -> list[pl.DataFrame]:
    """The cells an estimand is about, one table per level."""
    match estimand:
        case Difference(a=a, b=b):
            points = [(p.arm, level_text(p.level)) for p in (a, b)]
        case Slope(arm=arm) | Concordance(arm=arm):
            found = frame.filter((pl.col("arm") == arm) & pl.col("level_value").is_not_null())
            levels = found.select("level", "level_value").unique().sort("level_value")["level"]
            points = [(arm, level) for level in levels]
    return [frame.filter((pl.col("arm") == arm) & (pl.col("level") == level)) for arm, level in points]


def sample(frame: pl.DataFrame, estimand: Difference | Slope | Concordance, *, ok_only: bool) -> Sample:
    """Per-seed values of an estimand, over the seeds for which every level has a usable run."""
    tables = rows_of(frame, estimand)
    metrics = [estimand.metric, estimand.other] if isinstance(estimand, Concordance) else [estimand.metric]
    logarithmic = isinstance(estimand, Difference) and estimand.scale == "log"
    there = pl.all_horizontal(pl.col(metric).is_not_null() & pl.col(metric).is_not_nan() for metric in metrics)
    there = there & (pl.col(estimand.metric) > 0) if logarithmic else there
    unusable = sum(len(t.filter((pl.col("status") == "ok") & ~there)) for t in tables)
    usable = [t.filter(there) for t in tables]
    if ok_only:
        usable = [t.filter(pl.col("status") == "ok") for t in usable]
    seeds = sorted(set.intersection(*(set(t["seed"]) for t in usable))) if usable else []
    kept = [t.filter(pl.col("seed").is_in(seeds)).sort("seed") for t in usable]
    columns = [t[estimand.metric].to_numpy().astype(np.float64) for t in kept]
    statuses = tuple(tuple(t["status"]) for t in tables)
    match estimand:
        case Difference():
            columns = [np.log(column) for column in columns] if logarithmic else columns
            return Sample(columns[0] - columns[1], tuple(columns), statuses, unusable)
        case Concordance(other=other):
            others = [t[other].to_numpy().astype(np.float64) for t in kept]
            return Sample(within_levels(columns, others), (), statuses, unusable)
        case Slope():
            levels = np.array([float(t["level_value"][0]) for t in tables])
            enough = seeds and len(levels) > 1
            values = slopes_per_doubling(levels, np.stack(columns, axis=1)) if enough else np.empty(0)
            return Sample(values, (), statuses, unusable)


def failure_rates(found: Sample) -> list[float]:
    """Share of diverged or collapsed runs at each level."""
    return [sum(s in FAILED for s in level) / max(1, len(level)) for level in found.statuses]
