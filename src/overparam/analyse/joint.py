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

from overparam.analyse.comparisons import pseudo_values
from overparam.analyse.intervals import Interval, t_interval
from overparam.analyse.kendall import mean_tau, partial_tau, tau

Statistic = Callable[[pl.DataFrame], float]


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
        lambda kept: _grouped(kept, "seed", measure),
        lambda kept: _grouped(kept, "level", measure),
        lambda kept: partial_tau(kept[measure], kept["gap"], kept["train_loss"]),
    )
    overall, between, within, partial = (_jackknifed(runs, statistic) for statistic in statistics)
    return Correlation(
        arm, measure, len(runs), overall, between if runs["level"].n_unique() > 2 else None, within, partial
    )


def _jackknifed(runs: pl.DataFrame, statistic: Statistic) -> Interval:
    """t interval of the pseudo-values, as a claim about the same statistic has it, cut to [−1, 1]."""
    seeds = np.array(sorted(runs["seed"].unique()))

    def of_kept(kept: NDArray[np.intp]) -> float:
        return statistic(runs.filter(pl.col("seed").is_in(seeds[kept].tolist())))

    found = t_interval(pseudo_values(of_kept, len(seeds)))
    estimate, lower, upper = (float(np.clip(x, -1.0, 1.0)) for x in (found.estimate, found.lower, found.upper))
    return Interval(estimate, lower, upper, found.n, found.sd, "jackknife over seeds")


def _grouped(runs: pl.DataFrame, by: str, measure: str) -> float:
    """Mean of τ within each group: by seed it compares levels, by level it compares seeds."""
    groups = [group for _, group in runs.group_by(by, maintain_order=True)]
    return mean_tau([group[measure] for group in groups], [group["gap"] for group in groups])
