"""The numbers of the scaling figure: values of each seed, geometric means of each level, the fitted exponent."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import polars as pl

from overparam.claims.estimand import Slope, level_text
from overparam.claims.intervals import Interval, t_interval
from overparam.claims.sample import sample
from overparam.report import written
from overparam.report.figures.drawing import geometric
from overparam.studies.study import Panel


@dataclass(frozen=True)
class Scaling:
    """What one panel shows: `values[seed]` and `means` run along `levels`; NaN where a seed has no value.

    `exponent` is over the seeds with a value at every level shown.
    """

    panel: Panel
    levels: tuple[float, ...]
    values: dict[int, list[float]]
    means: tuple[tuple[float, float, float], ...]
    exponent: Interval

    @property
    def counts(self) -> list[int]:
        """Seeds behind each mean."""
        return [sum(math.isfinite(line[i]) for line in self.values.values()) for i in range(len(self.levels))]


def scaling_of(frame: pl.DataFrame, panel: Panel) -> Scaling:
    """Runs that ended well, at the positive numeric levels where any of them has a positive value."""
    if panel.metric not in frame.columns:
        return Scaling(panel, (), {}, (), t_interval([]))
    metric = pl.col(panel.metric)
    here = frame.filter((pl.col("arm") == panel.arm) & (pl.col("status") == "ok") & (pl.col("level_value") > 0))
    usable = here.filter(metric.is_finite() & (metric > 0)).sort("seed", "level_value")
    levels = tuple(sorted(usable["level_value"].unique()))
    found = {(seed, x): y for seed, x, y in usable.select("seed", "level_value", panel.metric).iter_rows()}
    seeds = list(dict.fromkeys(usable["seed"]))
    values = {seed: [found.get((seed, level), math.nan) for level in levels] for seed in seeds}
    means = [geometric([y for line in values.values() if math.isfinite(y := line[i])]) for i in range(len(levels))]
    return Scaling(panel, levels, values, tuple(means), _exponent(frame, panel, levels))


def _exponent(frame: pl.DataFrame, panel: Panel, levels: tuple[float, ...]) -> Interval:
    """As a claim about the same levels has it."""
    if len(levels) < 2:
        return t_interval([])
    slope = Slope(metric=panel.metric, arm=panel.arm, scale="log", levels=levels)
    return t_interval(sample(frame, slope, ok_only=True).values)


def exponent_written(exponent: Interval) -> str:
    """An exponent with its interval, if there is one.

    >>> exponent_written(t_interval([-0.5, -0.5])), exponent_written(t_interval([]))
    ('−0.500 [−0.500, −0.500]', '–')
    """
    middle, low, high = (written.effect(x, "exponent") for x in (exponent.estimate, exponent.lower, exponent.upper))
    return f"{middle} [{low}, {high}]" if exponent.n > 1 else middle


def mean_written(mean: tuple[float, float, float]) -> str:
    """A geometric mean with its interval, if there is one, to four digits.

    >>> mean_written((1.23456, 1.0, 2.0)), mean_written((1.5, math.nan, math.nan))
    ('1.235 [1, 2]', '1.5')
    """
    middle, low, high = (written.plain(x, 4) for x in mean)
    return middle if math.isnan(mean[1]) else f"{middle} [{low}, {high}]"


def arm_tables(found: Iterable[Scaling], titles: dict[str, str]) -> list[dict[str, Any]]:
    """One table for each arm: its panels side by side, a row for each level, and the exponents as the last."""
    by_arm = sorted(found, key=lambda each: list(titles).index(each.panel.arm))
    groups = groupby(by_arm, key=lambda each: each.panel.arm)
    return [_table(titles[arm], list(mine)) for arm, mine in groups]


def _table(title: str, mine: Sequence[Scaling]) -> dict[str, Any]:
    levels = sorted({level for each in mine for level in each.levels})
    rows = [{"level": level_text(level), **_row(mine, level)} for level in levels]
    return {
        "title": title,
        "heads": [each.panel.title for each in mine],
        "rows": rows,
        "exponents": [(exponent_written(each.exponent), each.exponent.n) for each in mine],
    }


def _row(mine: Sequence[Scaling], level: float) -> dict[str, Any]:
    """Means of one level, and over how many seeds they are."""
    there = [each.levels.index(level) if level in each.levels else None for each in mine]
    cells = ["–" if i is None else mean_written(each.means[i]) for each, i in zip(mine, there, strict=True)]
    counts = sorted({each.counts[i] for each, i in zip(mine, there, strict=True) if i is not None})
    return {"n": f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}", "cells": cells}


def records(found: Iterable[Scaling]) -> list[dict[str, Any]]:
    """The figure's numbers, a record for each panel."""
    return [
        {
            **each.panel.model_dump(),
            "exponent": asdict(each.exponent),
            "levels": [
                {"level": level, "n": n, "mean": mean, "lower": low, "upper": high}
                for level, n, (mean, low, high) in zip(each.levels, each.counts, each.means, strict=True)
            ],
        }
        for each in found
    ]


def means_csv(found: Iterable[Scaling]) -> str:
    """The same as a table: a row for each panel and level, with the exponent of the panel."""
    rows = [
        {"arm": each["arm"], "metric": each["metric"], **level}
        | {f"exponent_{name}": each["exponent"][name] for name in ("estimate", "lower", "upper", "n")}
        for each in records(found)
        for level in each["levels"]
    ]
    return pl.DataFrame(rows, infer_schema_length=None).write_csv()
