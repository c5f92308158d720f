"""How measures of sharpness go together with the gap over many runs: rank correlations with intervals over seeds.

Runs of one seed share initialization and data order, so whole seeds are left out (jackknife) and never single runs. A
correlation between levels of the swept factor says that the factor moves both; one within a level says that the measure
tells networks apart that were trained alike. The partial correlation takes out the train loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from overparam.claims.comparisons import pseudo_values
from overparam.claims.intervals import Interval, t_interval
from overparam.claims.kendall import mean_tau, partial_tau, tau

Statistic = Callable[[NDArray[np.intp]], float]  # of some seeds, given by their places


@dataclass(frozen=True)
class Correlation:
    """Kendall's τ-b of one measure with the gap in one arm: over all runs, between and within levels, partial.

    Between two levels it is ±1 in each seed and says no more than their difference: `None`.
    """

    arm: str
    measure: str
    runs: int
    overall: Interval
    between: Interval | None
    within: Interval
    partial: Interval


def correlations(frame: pl.DataFrame, arms: Sequence[str], measures: Sequence[str]) -> list[Correlation]:
    """Every measure against the gap, arm by arm; arms or measures with fewer than three complete seeds are left out."""
    return [
        found
        for arm in arms
        for measure in measures
        if (found := _correlation(_complete(frame, arm, measure), arm, measure)) is not None
    ]


def _complete(frame: pl.DataFrame, arm: str, measure: str) -> pl.DataFrame:
    """Runs that ended well and have both numbers, at the numeric levels and seeds where all do, level by level."""
    here = frame.filter((pl.col("arm") == arm) & pl.col("level_value").is_not_null())
    usable = here.filter((pl.col("status") == "ok") & pl.col(measure).is_finite() & pl.col("gap").is_finite())
    counts = usable.group_by("level").len()
    levels = counts.filter(pl.col("len") >= 3)["level"].to_list()
    kept = usable.filter(pl.col("level").is_in(levels))
    seeds = kept.group_by("seed").len().filter(pl.col("len") == len(levels))["seed"].to_list()
    return kept.filter(pl.col("seed").is_in(seeds)).sort("level_value", "seed")


def _correlation(runs: pl.DataFrame, arm: str, measure: str) -> Correlation | None:
    num_seeds, num_levels = runs["seed"].n_unique(), runs["level"].n_unique()
    if num_seeds < 3 or num_levels < 2:
        return None
    x, y, z = (runs[name].to_numpy().reshape(num_levels, num_seeds) for name in (measure, "gap", "train_loss"))
    statistics: tuple[Statistic, ...] = (
        lambda kept: tau(x[:, kept].ravel(), y[:, kept].ravel()),
        lambda kept: mean_tau(list(x.T[kept]), list(y.T[kept])),
        lambda kept: mean_tau(list(x[:, kept]), list(y[:, kept])),
        lambda kept: partial_tau(*(each[:, kept].ravel() for each in (x, y, z))),
    )
    overall, between, within, partial = (_jackknifed(statistic, num_seeds) for statistic in statistics)
    return Correlation(arm, measure, len(runs), overall, between if num_levels > 2 else None, within, partial)


def _jackknifed(statistic: Statistic, num_seeds: int) -> Interval:
    """t interval of the pseudo-values, as a claim about the same statistic has it, cut to [−1, 1]."""
    found = t_interval(pseudo_values(statistic, num_seeds))
    estimate, lower, upper = (float(np.clip(x, -1.0, 1.0)) for x in (found.estimate, found.lower, found.upper))
    return Interval(estimate, lower, upper, found.n, found.sd, "jackknife over seeds")
