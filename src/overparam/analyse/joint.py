"""How measures of sharpness go together with the gap over many runs: rank correlations with intervals over seeds.

Runs of one seed share initialization and data order, so whole seeds are left out (jackknife) and never single runs. A
correlation between levels of the swept factor says that the factor moves both; one within a level says that the measure
tells networks apart that were trained alike. The partial correlation takes out the train loss.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from overparam.analyse.comparisons import pseudo_values
from overparam.analyse.intervals import Interval, t_interval

Statistic = Callable[[pl.DataFrame], float]


@dataclass(frozen=True)
class Correlation:
    """Kendall's τ-b of one measure with the gap in one arm: over all runs, between and within levels, partial."""

    arm: str
    measure: str
    runs: int
    overall: Interval
    between: Interval
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
    """Runs that ended well and have both numbers, at the numeric levels and seeds where all do."""
    here = frame.filter((pl.col("arm") == arm) & pl.col("level_value").is_not_null())
    usable = here.filter((pl.col("status") == "ok") & pl.col(measure).is_finite() & pl.col("gap").is_finite())
    counts = usable.group_by("level").len()
    levels = counts.filter(pl.col("len") >= 3)["level"].to_list()
    kept = usable.filter(pl.col("level").is_in(levels))
    seeds = kept.group_by("seed").len().filter(pl.col("len") == len(levels))["seed"].to_list()
    return kept.filter(pl.col("seed").is_in(seeds)).sort("level_value", "seed")


def _correlation(runs: pl.DataFrame, arm: str, measure: str) -> Correlation | None:
    if runs["seed"].n_unique() < 3 or runs["level"].n_unique() < 2:
        return None
    statistics: tuple[Statistic, ...] = (
        lambda kept: tau(kept[measure], kept["gap"]),
        lambda kept: _mean_tau(kept, "seed", measure),
        lambda kept: _mean_tau(kept, "level", measure),
        lambda kept: partial_tau(kept[measure], kept["gap"], kept["train_loss"]),
    )
    return Correlation(arm, measure, len(runs), *(_jackknifed(runs, statistic) for statistic in statistics))


def _jackknifed(runs: pl.DataFrame, statistic: Statistic) -> Interval:
    """t interval of the pseudo-values around the statistic of all runs, cut to [−1, 1]."""
    seeds = np.array(sorted(runs["seed"].unique()))

    def of_kept(kept: NDArray[np.intp]) -> float:
        return statistic(runs.filter(pl.col("seed").is_in(seeds[kept].tolist())))

    found = t_interval(pseudo_values(of_kept, len(seeds)))
    whole = statistic(runs)
    reach = found.upper - found.estimate
    return Interval(whole, max(-1.0, whole - reach), min(1.0, whole + reach), found.n, found.sd, "jackknife over seeds")


def _mean_tau(runs: pl.DataFrame, by: str, measure: str) -> float:
    """Mean of τ within each group: by seed it compares levels, by level it compares seeds."""
    return float(np.mean([tau(group[measure], group["gap"]) for _, group in runs.group_by(by, maintain_order=True)]))


def tau(x: pl.Series, y: pl.Series) -> float:
    """Kendall's τ-b; 0 where one side never varies.

    >>> round(tau(pl.Series([1.0, 2.0, 3.0]), pl.Series([1.0, 3.0, 2.0])), 4)
    0.3333
    """
    found = float(stats.kendalltau(x.to_numpy(), y.to_numpy()).statistic)
    return 0.0 if math.isnan(found) else found


def partial_tau(x: pl.Series, y: pl.Series, z: pl.Series) -> float:
    """Kendall's partial τ: `(τ_xy − τ_xz τ_yz)/√((1 − τ_xz²)(1 − τ_yz²))`; NaN if z orders one side completely.

    >>> partial_tau(pl.Series([1.0, 2.0, 3.0, 4.0]), pl.Series([1.0, 2.0, 3.0, 4.0]), pl.Series([2.0, 1.0, 4.0, 3.0]))
    1.0
    """
    xy, xz, yz = tau(x, y), tau(x, z), tau(y, z)
    left = (1.0 - xz**2) * (1.0 - yz**2)
    return math.nan if left <= 0.0 else (xy - xz * yz) / math.sqrt(left)
