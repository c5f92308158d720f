"""Rank correlations of measures with the gap: against scipy, and what each kind of them is blind to."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from overparam.claims.comparisons import pseudo_values
from overparam.claims.correlations import correlations
from overparam.claims.intervals import t_interval
from overparam.claims.kendall import partial_tau, tau, within_levels
from overparam.foundations.numpy_generators import numpy_generator

SEEDS, LEVELS = 6, (1.0, 2.0, 4.0)


def runs(level_effect: float, own_effect: float, status: str = "ok", noise: float = 1e-6) -> pl.DataFrame:
    """Measure and gap share an effect of the level and one of the single run."""
    generator, rows = numpy_generator(0, "joint"), []
    for level in LEVELS:
        for seed in range(SEEDS):
            own = generator.normal()
            rows.append(
                {
                    "arm": "arm",
                    "level": format(level, "g"),
                    "level_value": level,
                    "seed": seed,
                    "status": status,
                    "sharp": level_effect * level + own,
                    "gap": level_effect * level + own_effect * own + noise * generator.normal(),
                    "train_loss": generator.normal(),
                }
            )
    return pl.DataFrame(rows)


def test_all_runs_is_kendalls_tau() -> None:
    """But for the jackknife's correction of its bias."""
    frame = runs(1.0, 0.5, noise=1.0)
    (found,) = correlations(frame, ["arm"], ["sharp"])

    def whole(kept: np.ndarray) -> float:
        mine = frame.filter(pl.col("seed").is_in(kept.tolist()))
        return float(stats.kendalltau(mine["sharp"], mine["gap"]).statistic)

    assert found.overall.estimate == pytest.approx(pseudo_values(whole, SEEDS).mean())
    assert found.overall.estimate == pytest.approx(whole(np.arange(SEEDS)), abs=0.1)
    assert found.runs == len(frame) and found.overall.n == SEEDS
    assert -1.0 <= found.overall.lower <= found.overall.estimate <= found.overall.upper <= 1.0


def test_within_levels_is_what_a_claim_tests() -> None:
    frame = runs(1.0, 0.5, noise=1.0)
    (found,) = correlations(frame, ["arm"], ["sharp"])
    columns = [
        [group[name].to_numpy() for _, group in frame.group_by("level", maintain_order=True)]
        for name in ("sharp", "gap")
    ]
    claimed = t_interval(within_levels(*columns))
    assert (found.within.estimate, found.within.sd) == pytest.approx((claimed.estimate, claimed.sd))


def test_two_levels_have_no_correlation_between_them() -> None:
    (found,) = correlations(runs(1.0, 0.5).filter(pl.col("level_value") < 4.0), ["arm"], ["sharp"])
    assert found.between is None and found.within.n == SEEDS


def test_between_levels_sees_the_factor_only() -> None:
    """The gap follows the level and not the network: within a level nothing is left."""
    (found,) = correlations(runs(100.0, 0.0, noise=1.0), ["arm"], ["sharp"])
    assert found.between is not None and found.between.estimate == 1.0
    assert abs(found.within.estimate) < 0.5


def test_within_levels_sees_the_network_only() -> None:
    (found,) = correlations(runs(0.0, 1.0), ["arm"], ["sharp"])
    assert found.within.estimate == pytest.approx(1.0)
    (turned,) = correlations(runs(0.0, -1.0), ["arm"], ["sharp"])
    assert turned.within.estimate == pytest.approx(-1.0)


def test_partial_takes_out_what_the_loss_explains() -> None:
    generator = numpy_generator(1, "joint")
    z = generator.normal(size=400)
    x, y = (z + 0.3 * generator.normal(size=400) for _ in range(2))
    a, b, c = (pl.Series(each) for each in (x, y, z))
    assert tau(a, b) > 0.5
    assert partial_tau(a, b, c) < 0.4 * tau(a, b)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=12, unique=True))
def test_tau_is_antisymmetric_and_bounded(values: list[float]) -> None:
    x = pl.Series(np.array(values))
    assert tau(x, x) == pytest.approx(1.0)
    assert tau(x, -x) == pytest.approx(-1.0)
    assert math.isnan(tau(x, pl.Series(np.ones(len(x)))))


def test_what_cannot_be_compared_is_left_out() -> None:
    assert correlations(runs(1.0, 1.0, status="diverged"), ["arm"], ["sharp"]) == []
    assert correlations(runs(1.0, 1.0).filter(pl.col("seed") < 2), ["arm"], ["sharp"]) == []
    assert correlations(runs(1.0, 1.0), ["another"], ["sharp"]) == []


def test_a_seed_that_lacks_a_level_is_left_out() -> None:
    frame = runs(1.0, 1.0).filter((pl.col("seed") != 0) | (pl.col("level_value") != 1.0))
    (found,) = correlations(frame, ["arm"], ["sharp"])
    assert found.overall.n == SEEDS - 1 and found.runs == (SEEDS - 1) * len(LEVELS)
