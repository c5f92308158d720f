"""Estimands beyond plain differences: ratios, intersection–union, concordance."""

import math
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from overparam.claims.claim import Claim
from overparam.claims.comparisons import pseudo_values
from overparam.claims.estimand import Concordance, Difference, Every, Point, Slope
from overparam.claims.intervals import t_interval
from overparam.claims.kendall import within_levels
from overparam.claims.sample import sample
from overparam.claims.verdict import judge
from overparam.foundations.numpy_generators import numpy_generator
from overparam.report import written

LEAST_COVERAGE = 0.93
CONCORDANCE = Concordance(metric="x", other="y", arm="arm")
POSITIVE = st.lists(st.floats(0.1, 10.0), min_size=3, max_size=8)


def table(**metrics: Mapping[float, Sequence[float | None]]) -> pl.DataFrame:
    """One arm; for each metric the values per seed at each level."""
    levels = next(iter(metrics.values()))
    rows = [
        {
            "arm": "arm",
            "level": format(level, "g"),
            "level_value": level,
            "seed": seed,
            "status": "ok",
            "num_test": 100,
            **{name: values[level][seed] for name, values in metrics.items()},
        }
        for level, seeds in levels.items()
        for seed in range(len(seeds))
    ]
    return pl.DataFrame(rows, schema_overrides=dict.fromkeys(metrics, pl.Float64))


def difference(metric: str, scale: str = "log") -> Difference:
    points = {"a": Point(arm="arm", level=2.0), "b": Point(arm="arm", level=1.0)}
    return Difference.model_validate({"metric": metric, "scale": scale, **points})


def claim(estimand: Difference | Every | Concordance, **fields: object) -> Claim:
    base = {"name": "c", "sentence": "s", "estimand": estimand, "test": "superiority", "margin": 0.4, "pilot_sd": 0.5}
    return Claim.model_validate(base | fields)


def verdict(frame: pl.DataFrame, *claims: Claim) -> list[str]:
    return [v.verdict for v in judge(frame, claims, generator=numpy_generator(0, "test"))]


@given(values=POSITIVE, unit=st.floats(0.01, 100.0), factor=st.floats(1.1, 5.0))
def test_a_ratio_does_not_know_its_unit(values: list[float], unit: float, factor: float) -> None:
    low, high = np.array(values) * unit, np.array(values) * unit * factor
    found = sample(table(m={1.0: list(low), 2.0: list(high)}), difference("m"), ok_only=True)
    assert np.allclose(found.values, math.log(factor))


@pytest.mark.parametrize("bad", [0.0, -1.0, None])
def test_a_value_without_a_logarithm_settles_nothing(bad: float | None) -> None:
    """Leaving such a seed out would keep only the seeds that speak for the claim."""
    frame = table(m={1.0: [1.0, 1.1, 0.9, 1.0], 2.0: [9.0, 9.5, 8.7, bad]})
    (found,) = judge(frame, [claim(difference("m"))], generator=numpy_generator(0, "test"))
    assert found.verdict == "inconclusive"
    assert "1 finished runs have no usable value" in found.reason


def test_every_part_must_hold() -> None:
    strong, weak = [9.0, 9.5, 8.7, 9.2, 9.1], [1.5, 0.7, 1.9, 0.5, 1.2]
    ones: list[float | None] = [1.0] * 5
    frame = table(s={1.0: ones, 2.0: list(strong)}, w={1.0: ones, 2.0: list(weak)})
    every = claim(Every(parts=(difference("s"), difference("w"))))
    assert verdict(frame, claim(difference("s")), every)[0] == "supported"
    found = judge(frame, [every], generator=numpy_generator(0, "test"))[0]
    alone = judge(frame, [claim(difference("w"))], generator=numpy_generator(0, "test"))[0]
    assert found.p == alone.p and found.interval == alone.interval
    assert found.verdict == "inconclusive"
    assert any("weakest of 2 parts, w" in caveat for caveat in found.caveats)


def test_one_refuted_part_refutes_the_whole() -> None:
    ones: list[float | None] = [1.0] * 5
    frame = table(s={1.0: ones, 2.0: [9.0, 9.5, 8.7, 9.2, 9.1]}, w={1.0: ones, 2.0: [0.1, 0.11, 0.09, 0.1, 0.12]})
    assert verdict(frame, claim(Every(parts=(difference("s"), difference("w"))))) == ["refuted"]


def test_a_small_part_that_holds_refutes_nothing() -> None:
    """It is below the margin beyond doubt, and above zero beyond doubt; the other part is open, and so is the whole."""
    ones: list[float | None] = [1.0] * 5
    frame = table(s={1.0: ones, 2.0: [1.10, 1.11, 1.09, 1.10, 1.105]}, w={1.0: ones, 2.0: [9.0, 0.5, 30.0, 2.0, 0.4]})
    small, open_, every = (
        claim(difference("s")),
        claim(difference("w")),
        claim(Every(parts=(difference("s"), difference("w")))),
    )
    assert [verdict(frame, each)[0] for each in (small, open_, every)] == ["supported", "inconclusive", "inconclusive"]


def test_the_part_that_refutes_is_shown() -> None:
    ones: list[float | None] = [1.0] * 5
    frame = table(w={1.0: ones, 2.0: [9.0, 0.5, 30.0, 2.0, 0.4]}, r={1.0: ones, 2.0: [0.3, 0.31, 0.29, 0.3, 0.32]})
    (found,) = judge(frame, [claim(Every(parts=(difference("w"), difference("r"))))], generator=numpy_generator(0, "t"))
    assert found.verdict == "refuted" and found.interval.upper < 0.0
    assert isinstance(found.shown, Difference) and found.shown.metric == "r"
    assert "beyond the margin on the other side" in found.reason and "most adverse of 2 parts, r" in found.caveats[-1]


def test_an_interval_on_the_other_side_is_called_that() -> None:
    frame = table(m={1.0: [1.0] * 5, 2.0: [0.8, 0.6, 0.85, 0.7, 0.75]})
    (found,) = judge(frame, [claim(difference("m"))], generator=numpy_generator(0, "test"))
    assert found.verdict == "inconclusive" and found.interval.upper < 0.0 < found.interval.upper + 0.4
    assert "on the other side of the null" in found.reason
    assert not any("power" in caveat for caveat in found.caveats)


def test_the_chance_of_a_wrong_support_of_every_part_is_at_most_five_percent() -> None:
    """Three parts, one of them null: 400 experiments, z-bound at 4 standard errors."""
    generator, supported = numpy_generator(1, "union"), 0
    parts = tuple(difference(m, "linear") for m in ("a", "b", "c"))
    for _ in range(400):
        effects = {"a": 2.0, "b": 2.0, "c": 0.0}
        metrics = {
            m: {1.0: list(generator.normal(size=5)), 2.0: list(effect + generator.normal(size=5))}
            for m, effect in effects.items()
        }
        supported += verdict(table(**metrics), claim(Every(parts=parts), confirmatory=False)) == ["supported"]
    assert supported / 400 <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 400)


def levels_of(x: np.ndarray) -> dict[float, list[float]]:
    """Rows are levels, columns seeds."""
    return {2.0**i: list(row) for i, row in enumerate(x)}


def test_concordance_is_the_mean_of_kendalls_tau_within_levels() -> None:
    generator = numpy_generator(2, "tau")
    x = generator.normal(size=(3, 6))
    y = x + generator.normal(size=x.shape) + np.array([[0.0], [50.0], [-50.0]])  # levels move y, and must not count
    values = sample(table(x=levels_of(x), y=levels_of(y)), CONCORDANCE, ok_only=True).values

    def naive(kept: list[int]) -> float:
        return float(np.mean([stats.kendalltau(a[kept], b[kept]).statistic for a, b in zip(x, y, strict=True)]))

    left_out = [naive([seed for seed in range(6) if seed != out]) for out in range(6)]
    assert np.allclose(values, 6 * naive(list(range(6))) - 5 * np.array(left_out))


def test_what_only_the_level_moves_is_no_concordance() -> None:
    """Both rise from level to level; among networks trained alike there is nothing, and more seeds must not find it."""
    generator = numpy_generator(4, "levels")
    x, y = (generator.normal(size=(2, 40)) + np.array([[0.0], [100.0]]) for _ in range(2))
    (found,) = judge(
        table(x=levels_of(x), y=levels_of(y)), [claim(CONCORDANCE, margin=0.4)], generator=numpy_generator(0, "test")
    )
    assert found.verdict == "refuted"
    assert abs(found.interval.estimate) < 0.2


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_perfect_concordance_is_settled(sign: float) -> None:
    x = {1.0: [1.0, 2.0, 3.0, 4.0], 2.0: [5.0, 6.0, 7.0, 8.0]}
    frame = table(x=x, y={level: [sign * v for v in values] for level, values in x.items()})
    found = verdict(frame, claim(CONCORDANCE, margin=0.2))
    assert found == ["supported" if sign > 0 else "refuted"]


def test_a_measure_that_never_varies_has_no_rank() -> None:
    frame = table(x={1.0: [1.0, 1.0, 1.0], 2.0: [1.0, 1.0, 1.0]}, y={1.0: [1.0, 2.0, 3.0], 2.0: [4.0, 5.0, 6.0]})
    (found,) = judge(frame, [claim(CONCORDANCE)], generator=numpy_generator(0, "test"))
    assert found.verdict == "inconclusive"
    assert found.reason == "x or y is equal in all seeds of a level, or in all but one, and cannot be ranked"


def test_two_seeds_are_counted_as_two() -> None:
    pairs = {1.0: [1.0, 2.0], 2.0: [5.0, 6.0]}
    (found,) = judge(table(x=pairs, y=pairs), [claim(CONCORDANCE)], generator=numpy_generator(0, "test"))
    assert found.reason == "only 2 complete seeds; at least 3 are needed"


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_intervals_of_concordance_cover(rho: float) -> None:
    """Bivariate normal runs, 2 levels × 5 seeds: τ = 2/π·asin ρ within a level, whatever the level adds to both."""
    generator, hits, trials = numpy_generator(3, "cover"), 0, 500
    truth = 2.0 / math.pi * math.asin(rho)
    for _ in range(trials):
        x = generator.normal(size=(2, 5))
        y = rho * x + math.sqrt(1 - rho**2) * generator.normal(size=(2, 5))
        shift = np.array([[0.0], [3.0]])
        found = t_interval(within_levels(list(x + shift), list(y + shift)))
        hits += found.lower <= truth <= found.upper
    assert hits / trials >= LEAST_COVERAGE, f"{hits / trials:.3f}"


def test_what_a_level_adds_to_both_changes_no_concordance() -> None:
    """So that the coverage above is that without any addition, too."""
    generator = numpy_generator(3, "shifts")
    for _ in range(20):
        x, y = generator.normal(size=(2, 2, 5))
        shift = np.array([[0.0], [3.0]])
        assert within_levels(list(x + shift), list(y + shift)).tolist() == within_levels(list(x), list(y)).tolist()


@given(values=st.lists(st.floats(-5, 5), min_size=3, max_size=9))
def test_pseudo_values_of_a_mean_are_the_values(values: list[float]) -> None:
    x = np.array(values)
    assert np.allclose(pseudo_values(lambda kept: float(x[kept].mean()), len(x)), x, atol=1e-9)


def test_units_follow_the_estimand() -> None:
    slope = Slope(metric="lambda_max", arm="arm")
    estimands = (difference("m"), difference("m", "linear"), difference("gap", "linear"), slope)
    assert [written.unit(e) for e in estimands] == ["factor", "plain", "points", "per doubling"]
    assert written.unit(Every(parts=(difference("m"),))) == "factor"
    shown = [written.effect(value, unit) for value, unit in product((0.0, 100.0), ("factor", "points", "loss"))]
    assert shown == ["×1.00", "+0.00", "+0.00", "×e^100", "+10000.00", "+100."]


def test_an_early_stop_that_was_cut_off_leaves_its_claim_open() -> None:
    """Else a control that was still getting better when it ended would count at its worst."""
    values = {"early_stop_accuracy": {1.0: [0.5, 0.51, 0.52, 0.5], 2.0: [0.9, 0.91, 0.92, 0.9]}}
    done = {"early_stop_censored": {1.0: [0.0] * 4, 2.0: [0.0] * 4}}
    cut = {"early_stop_censored": {1.0: [0.0, 1.0, 0.0, 0.0], 2.0: [0.0] * 4}}
    early = claim(difference("early_stop_accuracy", "linear"))
    assert verdict(table(**values, **done), early) == ["supported"]
    (found,) = judge(table(**values, **cut), [early], generator=numpy_generator(0, "test"))
    assert (found.verdict, found.reason) == (
        "inconclusive",
        "1 of 8 runs did not reach their target loss, or their best one",
    )
    other = table(test_accuracy=values["early_stop_accuracy"], **cut)
    assert verdict(other, claim(difference("test_accuracy", "linear"))) == ["supported"]


def test_either_side_of_a_difference_may_be_cut_off() -> None:
    """Only the side that reads a metric of early stopping is affected, here that of level 1."""
    full = {1.0: [0.5] * 4, 2.0: [0.9, 0.92, 0.91, 0.9]}
    early = {1.0: [0.5, 0.51, 0.52, 0.5], 2.0: [0.5] * 4}
    mixed = difference("test_accuracy", "linear").model_copy(update={"other": "early_stop_accuracy"})
    for level, expected in ((1.0, "inconclusive"), (2.0, "supported")):
        cut = {each: [0.0, float(each == level), 0.0, 0.0] for each in (1.0, 2.0)}
        frame = table(test_accuracy=full, early_stop_accuracy=early, early_stop_censored=cut)
        assert verdict(frame, claim(mixed)) == [expected]
