"""Power laws fitted to each seed, and means of one cell: their numbers, their coverage, and what stops them."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from overparam.claims.claim import Claim
from overparam.claims.comparisons import slopes_per_doubling
from overparam.claims.estimand import Difference, Mean, Point, Slope
from overparam.claims.intervals import Values, t_interval
from overparam.claims.sample import sample
from overparam.claims.verdict import Verdict, judge
from overparam.foundations.numpy_generators import numpy_generator
from overparam.report import tables, written
from overparam.report.figures.effects import drawable

WIDTHS = np.array([16.0, 32.0, 64.0, 128.0])
EXPONENT = Slope(metric="m", arm="arm", scale="log")
MEAN = Mean(metric="m", at=Point(arm="arm", level=64))
WITHIN_A_CELL = Difference(metric="m", other="kernel", a=MEAN.at, b=MEAN.at)
RESIDUES = np.array([-0.012, 0.005, 0.001, -0.004, 0.010])


def table(values: Values, **metrics: Values) -> pl.DataFrame:
    """One arm; rows of `values` are seeds, columns widths."""
    rows = [
        {"arm": "arm", "level": format(width, "g"), "level_value": float(width), "seed": seed, "status": "ok"}
        | {name: float(array[seed, i]) for name, array in {"m": values, **metrics}.items()}
        for seed in range(len(values))
        for i, width in enumerate(WIDTHS)
    ]
    return pl.DataFrame(rows).with_columns(num_test=pl.lit(400))


def laws(exponents: Values, factor: float = 3.0) -> Values:
    """Exact power laws, one seed each."""
    found: Values = factor * WIDTHS ** exponents[:, None]
    return found


def changed(frame: pl.DataFrame, column: str, value: object, seed: int = 1, level: str = "64") -> pl.DataFrame:
    here = (pl.col("seed") == seed) & (pl.col("level") == level)
    return frame.with_columns(pl.when(here).then(pl.lit(value)).otherwise(pl.col(column)).alias(column))


def claim(estimand: Slope | Mean | Difference = EXPONENT, **fields: object) -> Claim:
    base = {"name": "c", "sentence": "s", "estimand": estimand, "test": "equivalence", "null": -0.5}
    return Claim.model_validate(base | {"margin": 0.1, "pilot_sd": 0.05} | fields)


def verdict(frame: pl.DataFrame, given: Claim) -> Verdict:
    return judge(frame, [given], generator=numpy_generator(0, "test"))[0]


@given(exponents=st.lists(st.floats(-3.0, 3.0), min_size=2, max_size=6), factor=st.floats(1e-6, 1e6))
def test_a_power_law_gives_its_exponent_whatever_its_factor(exponents: list[float], factor: float) -> None:
    found = sample(table(laws(np.array(exponents), factor)), EXPONENT, ok_only=True)
    assert found.values == pytest.approx(exponents, abs=1e-9)
    assert found.groups == ()


def test_an_exponent_is_the_least_squares_line_of_the_logarithms() -> None:
    values = np.exp(numpy_generator(0, "fit").normal(size=(5, 4)))
    found = sample(table(values), EXPONENT, ok_only=True).values
    expected = [stats.linregress(np.log(WIDTHS), np.log(row)).slope for row in values]
    assert found == pytest.approx(expected)


def test_only_the_chosen_levels_enter_in_any_order() -> None:
    values = laws(np.full(4, -0.5))
    values[:, 0] *= 100.0  # the narrowest is not of the law
    frame = table(values)
    chosen = EXPONENT.model_copy(update={"levels": (128.0, 32.0, 64.0)})
    assert sample(frame, chosen, ok_only=True).values == pytest.approx([-0.5] * 4)
    assert abs(sample(frame, EXPONENT, ok_only=True).values[0] + 0.5) > 0.5
    assert sample(changed(frame, "status", "diverged", level="16"), chosen, ok_only=True).values.shape == (4,)


def test_a_chosen_level_without_runs_leaves_no_value() -> None:
    gone = EXPONENT.model_copy(update={"levels": (32.0, 64.0, 256.0)})
    found = sample(table(laws(np.full(4, -0.5))), gone, ok_only=True)
    assert len(found.values) == 0
    assert verdict(table(laws(np.full(4, -0.5))), claim(gone)).verdict == "inconclusive"


def test_a_linear_slope_is_per_doubling_as_before() -> None:
    values = numpy_generator(1, "linear").normal(size=(5, 4))  # of both signs
    linear = Slope(metric="m", arm="arm")
    found = sample(table(values), linear, ok_only=True)
    assert found.values == pytest.approx(slopes_per_doubling(WIDTHS, values)) and found.unusable == 0
    part = linear.model_copy(update={"levels": (16.0, 128.0)})
    assert sample(table(values), part, ok_only=True).values == pytest.approx((values[:, 3] - values[:, 0]) / 3.0)


def test_intervals_of_an_exponent_cover() -> None:
    """2,000 studies of five seeds, with spread between seeds and within them: 95 % to 4 standard errors."""
    generator, trials = numpy_generator(2, "cover"), 2000
    seeds = 5 * trials
    noise = 0.1 * generator.normal(size=(seeds, 4)) + 0.5 * generator.normal(size=(seeds, 1))
    values = laws(-0.5 + 0.05 * generator.normal(size=seeds)) * np.exp(noise)
    studies = sample(table(values), EXPONENT, ok_only=True).values.reshape(trials, 5)
    found = [t_interval(study) for study in studies]
    hits = sum(each.lower <= -0.5 <= each.upper for each in found)
    assert abs(hits / trials - 0.95) <= 4.0 * math.sqrt(0.05 * 0.95 / trials), f"{hits / trials:.4f}"


@pytest.mark.parametrize(
    ("middle", "spread", "expected"),
    [
        (-0.5, 1.0, "supported"),
        (-0.55, 1.0, "supported"),
        (-0.7, 1.0, "refuted"),
        (-0.3, 1.0, "refuted"),
        (-0.5, 30.0, "inconclusive"),
        (-0.6, 1.0, "inconclusive"),
    ],
)
def test_an_exponent_is_as_expected_up_to_the_margin_or_is_not(middle: float, spread: float, expected: str) -> None:
    found = verdict(table(laws(middle + spread * RESIDUES)), claim())
    assert found.verdict == expected
    assert found.interval.estimate == pytest.approx(middle)
    assert found.shown == EXPONENT and found.welch_p is None and found.sampling_error is None


@pytest.mark.parametrize("bad", [0.0, -1.0, None, math.nan, math.inf])
def test_a_value_without_a_logarithm_leaves_an_exponent_open(bad: float | None) -> None:
    frame = changed(table(laws(-0.5 + RESIDUES)), "m", bad)
    found = sample(frame, EXPONENT, ok_only=True)
    assert (len(found.values), found.unusable) == (4, 1)
    assert "1 finished runs have no usable value" in verdict(frame, claim()).reason


@pytest.mark.parametrize(("status", "reason"), [("diverged", "failure rates differ"), ("missing", "1 of 20 runs are")])
def test_runs_that_failed_leave_an_exponent_open(status: str, reason: str) -> None:
    found = verdict(changed(table(laws(-0.5 + RESIDUES)), "status", status), claim())
    assert found.verdict == "inconclusive" and reason in found.reason and found.n == 4


def test_a_mean_has_the_t_interval_of_its_cell() -> None:
    """0.90, 0.92, 0.94, 0.96: mean 0.93, s = √(0.002/3), t₃ = 3.18245."""
    values = np.full((4, 4), 0.1)
    values[:, 2] = [0.90, 0.92, 0.94, 0.96]
    found = verdict(table(values), claim(MEAN, test="superiority", null=0.9, margin=0.02)).interval
    half = 3.18245 * math.sqrt(0.002 / 3.0) / 2.0
    assert found.n == 4
    assert [found.estimate, found.lower, found.upper] == pytest.approx([0.93, 0.93 - half, 0.93 + half], abs=1e-6)


@pytest.mark.parametrize(
    ("middle", "spread", "expected"),
    [(0.94, 1.0, "supported"), (0.85, 1.0, "refuted"), (0.9, 1.0, "refuted"), (0.91, 5.0, "inconclusive")],
)
def test_a_mean_is_tested_against_its_null(middle: float, spread: float, expected: str) -> None:
    values = np.tile(middle + spread * RESIDUES[:, None], (1, 4))
    found = verdict(table(values), claim(MEAN, test="superiority", null=0.9, margin=0.02))
    assert found.verdict == expected
    t = stats.ttest_1samp(values[:, 2], 0.9).statistic
    assert found.p == pytest.approx(min(1.0, 2.0 * stats.t.sf(t, 4)))
    assert found.effect_size == pytest.approx(t / math.sqrt(5.0) * (1.0 - 3.0 / 15.0))


@pytest.mark.parametrize("status", ["diverged", "missing"])
def test_failed_runs_leave_a_mean_open(status: str) -> None:
    """One cell has no other to differ from, yet a mean of the survivors is not that of all seeds."""
    frame = changed(table(np.full((5, 4), 0.95) + RESIDUES[:, None]), "status", status)
    found = verdict(frame, claim(MEAN, test="superiority", null=0.9, margin=0.02))
    reason = {"diverged": "20% of the runs failed", "missing": "1 of 5 runs are missing"}[status]
    assert found.verdict == "inconclusive" and reason in found.reason
    elsewhere = changed(frame.with_columns(status=pl.lit("ok")), "status", status, level="16")
    assert verdict(elsewhere, claim(MEAN, test="superiority", null=0.9, margin=0.02)).verdict == "supported"


def test_a_mean_that_is_not_measured_leaves_it_open() -> None:
    found = verdict(changed(table(np.full((5, 4), 0.95)), "m", None), claim(MEAN, test="superiority", null=0.9))
    assert "no usable value" in found.reason


def test_a_mean_accuracy_has_the_sampling_error_of_one_test_set() -> None:
    accuracies = np.full((5, 4), 0.8)
    accuracy = Mean(metric="test_accuracy", at=Point(arm="arm", level=64))
    found = verdict(table(accuracies, test_accuracy=accuracies), claim(accuracy, test="superiority", null=0.9))
    assert found.sampling_error == pytest.approx(math.sqrt(0.8 * 0.2 / 400))


def test_two_metrics_of_one_cell_are_compared_seed_by_seed() -> None:
    network = np.tile(0.9 + RESIDUES[:, None], (1, 4))
    kernel = 0.95 * network
    cell = Point(arm="arm", level=64)
    contrast = Difference(metric="kernel", other="m", a=cell, b=cell, scale="log")
    found = verdict(table(network, kernel=kernel), claim(contrast, test="superiority", null=math.log(0.9), margin=0.02))
    assert found.verdict == "supported" and found.interval.estimate == pytest.approx(math.log(0.95))
    linear = Difference(metric="m", other="kernel", a=cell, b=cell)
    assert sample(table(network, kernel=kernel), linear, ok_only=True).values == pytest.approx(0.05 * network[:, 2])
    gone = changed(table(network, kernel=kernel), "kernel", None)
    assert sample(gone, linear, ok_only=True).unusable == 1


@pytest.mark.parametrize(
    ("status", "reason", "caveat"),
    [
        ("missing", "1 of 5 runs are missing", "1 missing run"),
        ("diverged", "20% of the runs failed", "1 diverged run"),
    ],
)
def test_a_cell_compared_with_itself_counts_each_run_once(status: str, reason: str, caveat: str) -> None:
    network = np.tile(0.9 + RESIDUES[:, None], (1, 4))
    frame = changed(table(network, kernel=0.95 * network), "status", status)
    found = verdict(frame, claim(WITHIN_A_CELL, test="superiority", null=0.0, margin=0.02))
    assert (found.verdict, found.n) == ("inconclusive", 4)
    assert found.reason.startswith(reason) and caveat in found.caveats
    unmeasured = changed(changed(table(network, kernel=network), "kernel", None), "m", None)
    assert sample(unmeasured, WITHIN_A_CELL, ok_only=True).unusable == 1


def test_a_metric_that_is_the_same_at_all_levels_has_no_trend() -> None:
    """Uneven levels give slopes of rounding size, whose sign says nothing."""
    flat = Slope(metric="m", arm="arm", levels=(16.0, 32.0, 128.0))
    for direction in ("greater", "less"):
        asked = claim(flat, test="superiority", direction=direction, null=0.0, margin=0.001)
        found = verdict(table(np.ones((5, 4))), asked)
        assert (found.verdict, found.p, found.interval.estimate) == ("refuted", 1.0, 0.0)
        assert math.isnan(found.effect_size)


def test_exponents_and_means_are_written_as_what_they_are() -> None:
    accuracy = Mean(metric="test_accuracy", at=MEAN.at)
    units = [written.unit(each) for each in (EXPONENT, MEAN, accuracy, Mean(metric="train_loss", at=MEAN.at))]
    assert units == ["exponent", "mean", "%", "mean loss"]
    assert [written.effect(0.5, unit) for unit in units] == ["+0.500", "0.500", "50.00", "0.500"]
    assert written.unit(Mean(metric="gap", at=MEAN.at)) == "points"
    assert written.unit(Slope(metric="kernel_accuracy", arm="arm")) == "points per doubling"
    assert [written.averaged(each) for each in (EXPONENT, MEAN)] == [
        "exponent fitted to each seed",
        "value of each seed",
    ]


def test_only_differences_of_accuracies_are_drawn_as_effects() -> None:
    frame = table(laws(-0.5 + RESIDUES), test_accuracy=np.full((5, 4), 0.9) + RESIDUES[:, None])
    accuracy = Mean(metric="test_accuracy", at=MEAN.at)
    found = [verdict(frame, claim()), verdict(frame, claim(accuracy, null=0.9))]
    assert drawable(found) == []
    rows = [tables.verdict_row(each) for each in found]
    assert [(row["estimand"], row["scale"], row["other"]) for row in rows] == [
        ("slope", "log", None),
        ("mean", "linear", None),
    ]
