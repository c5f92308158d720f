"""The table of runs and what an estimand takes from it."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from overparam.analyse.comparisons import slopes_per_doubling
from overparam.specs.study import Difference, Slope

FAILED = ("diverged", "collapsed")


def level_text(level: float | str) -> str:
    """How a level is written everywhere.

    >>> level_text(32.0), level_text("full lr 0.1")
    ('32', 'full lr 0.1')
    """
    return level if isinstance(level, str) else format(level, "g")


@dataclass(frozen=True)
class Sample:
    """What an estimand gives on a table: one value per seed, and which runs stood in the way.

    `groups` are the values of the two sides of a difference, empty for a slope.
    """

    values: NDArray[np.float64]
    groups: tuple[NDArray[np.float64], ...]
    statuses: tuple[tuple[str, ...], ...]


def rows_of(frame: pl.DataFrame, estimand: Difference | Slope) -> list[pl.DataFrame]:
    """The cells an estimand is about, one table per level."""
    match estimand:
        case Difference(a=a, b=b):
            points = [(p.arm, level_text(p.level)) for p in (a, b)]
        case Slope(arm=arm):
            found = frame.filter((pl.col("arm") == arm) & pl.col("level_value").is_not_null())
            levels = found.select("level", "level_value").unique().sort("level_value")["level"]
            points = [(arm, level) for level in levels]
    return [frame.filter((pl.col("arm") == arm) & (pl.col("level") == level)) for arm, level in points]


def sample(frame: pl.DataFrame, estimand: Difference | Slope, *, ok_only: bool) -> Sample:
    """Per-seed values of an estimand, over the seeds for which every level has a usable run."""
    tables = rows_of(frame, estimand)
    metric = estimand.metric
    usable = [t.filter(pl.col(metric).is_not_null() & pl.col(metric).is_not_nan()) for t in tables]
    if ok_only:
        usable = [t.filter(pl.col("status") == "ok") for t in usable]
    seeds = sorted(set.intersection(*(set(t["seed"]) for t in usable))) if usable else []
    columns = [t.filter(pl.col("seed").is_in(seeds)).sort("seed")[metric].to_numpy().astype(np.float64) for t in usable]
    statuses = tuple(tuple(t["status"]) for t in tables)
    if isinstance(estimand, Difference):
        return Sample(columns[0] - columns[1], tuple(columns), statuses)
    levels = np.array([float(t["level_value"][0]) for t in tables])
    values = slopes_per_doubling(levels, np.stack(columns, axis=1)) if seeds and len(levels) > 1 else np.empty(0)
    return Sample(values, (), statuses)


def failure_rates(found: Sample) -> list[float]:
    """Share of diverged or collapsed runs at each level."""
    return [sum(s in FAILED for s in level) / max(1, len(level)) for level in found.statuses]
