"""The detector of peaks: what it must not call, what it must, and claims that rest on it."""

import math

import numpy as np
import polars as pl
import pytest

from overparam.claims.claim import Claim
from overparam.claims.estimand import Peak, PeakPlace
from overparam.claims.intervals import Values
from overparam.claims.peak import factor, first_below, held_out, most_prominent
from overparam.claims.sample import sample
from overparam.claims.verdict import judge
from overparam.foundations.numpy_generators import numpy_generator
from tests.support.curves import FLAT, PEAKS, experiments

COUNT = 1000
MONTE_CARLO = 2 * math.sqrt(0.05 * 0.95 / COUNT)
LEAST = {5: 0.6, 10: 0.8}  # of spikes of two standard deviations


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("family", FLAT)
def test_a_curve_without_a_peak_is_called_in_five_per_cent_at_most(family: str, seeds: int, shared: float) -> None:
    """In-sample prominence is never negative: a detector that tests it where it was chosen calls nearly all."""
    called = [held_out(values).p < 0.05 for values in experiments(FLAT[family], seeds, shared, COUNT)]
    assert np.mean(called) <= 0.05 + MONTE_CARLO


@pytest.mark.parametrize("shared", [0.0, 0.5])
@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("family", ["spike", "double descent"])
def test_a_peak_of_two_standard_deviations_is_found(family: str, seeds: int, shared: float) -> None:
    called = [held_out(values).p < 0.05 for values in experiments(PEAKS[family], seeds, shared, COUNT)]
    assert np.mean(called) >= LEAST[seeds] - 2 * math.sqrt(0.6 * 0.4 / COUNT)


def test_the_most_prominent_peak_is_that_of_all_triples() -> None:
    for values in experiments(PEAKS["triangle"], 1, 0.0, 50):
        curve, levels = values[0], range(10)
        triples = [(i, j, k) for i in levels for j in levels for k in levels if i < j < k]
        best = max(triples, key=lambda t: min(curve[t[1]] - curve[t[0]], curve[t[1]] - curve[t[2]]))
        left, peak, right = (int(found) for found in most_prominent(curve))
        assert peak == best[1]
        assert (curve[left], curve[right]) == (curve[:peak].min(), curve[peak + 1 :].min())


def test_the_seed_that_is_tested_is_not_chosen_on() -> None:
    values = np.zeros((4, 6))
    values[0] = [0.0, 9.0, 0.0, 0.0, 0.0, 0.0]  # alone in having a peak
    values[1:, 3] = 1.0
    found = held_out(values)
    assert found.peak[0] == 3 and found.rise[0] == 0.0
    assert found.peak[1:].tolist() == [1, 1, 1] and found.rise[1:].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("shape", [(5, 2), (1, 5)])
def test_too_little_for_a_peak_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 3 levels and 2 seeds"):
        held_out(np.zeros(shape))


def test_the_factor_grows_with_the_seeds() -> None:
    factors = [factor(seeds) for seeds in range(2, 40)]
    assert factors[0] == 1.0 and factors == sorted(factors)


def test_a_bound_is_reached_between_levels() -> None:
    levels = np.array([1.0, 2.0, 8.0])
    rows = np.array([[4.0, 3.0, 1.0], [4.0, 3.5, 3.0], [1.0, 0.0, 0.0]])
    found = first_below(levels, rows, 2.0)
    assert found[0] == pytest.approx(4.0)
    assert np.isnan(found[1:]).all()


def table(values: Values, failed: int = 0, **others: Values) -> pl.DataFrame:
    """Error by seeds and levels 1, 2, 4 …; the last seeds at level 8 are failures if so asked."""
    rows = [
        {
            "arm": "arm",
            "level": format(2.0**j, "g"),
            "level_value": 2.0**j,
            "seed": i,
            "status": "collapsed" if j == 3 and i >= len(values) - failed else "ok",
            "num_test": 100,
            "test_accuracy": 1.0 - values[i, j],
            **{name: float(each[i, j]) for name, each in others.items()},
        }
        for i in range(values.shape[0])
        for j in range(values.shape[1])
    ]
    return pl.DataFrame(rows)


PEAK = Peak(metric="test_accuracy", arm="arm", trough=True)


def claim(estimand: Peak | PeakPlace = PEAK, **fields: object) -> Claim:
    base = {"name": "c", "sentence": "s", "estimand": estimand, "test": "superiority", "margin": 0.01, "pilot_sd": 0.01}
    return Claim.model_validate(base | fields)


def curves(shape: list[float], sd: float = 0.004, seeds: int = 5) -> Values:
    noise: Values = sd * numpy_generator(0, "noise").standard_normal((seeds, len(shape)))
    return np.array(shape) + noise


@pytest.mark.parametrize(
    ("shape", "verdict"),
    [
        ([0.5, 0.4, 0.45, 0.5, 0.42, 0.3], "supported"),
        ([0.5, 0.45, 0.4, 0.35, 0.3, 0.25], "refuted"),
        ([0.3, 0.3, 0.3, 0.3, 0.3, 0.3], "refuted"),
    ],
)
def test_a_claim_of_a_peak_is_settled_by_what_is_held_out(shape: list[float], verdict: str) -> None:
    (found,) = judge(table(curves(shape)), [claim()], generator=numpy_generator(0, "judge"))
    assert found.verdict == verdict
    if verdict == "supported":
        assert found.interval.lower > 0.0
        assert "rise and fall" in found.reason


def test_a_peak_of_failed_runs_is_no_peak_and_said_to_be_one_otherwise() -> None:
    """The published peak: at one width one of the seeds did not train."""
    values = curves([0.5, 0.45, 0.4, 0.35, 0.3, 0.25], seeds=6)
    values[:, 3] += 0.4
    frame = table(values, failed=6)
    (found,) = judge(frame, [claim()], generator=numpy_generator(0, "judge"))
    assert found.verdict == "inconclusive" and "failure rates differ" in found.reason
    assert "with the runs that failed counted in, a peak would have been called" in found.caveats


def test_the_place_of_a_peak_is_counted_in_doublings_from_the_threshold() -> None:
    values = curves([0.5, 0.4, 0.45, 0.6, 0.42, 0.3], sd=0.0)
    reached = np.array([0.5, 0.7, 0.9, 0.98, 1.0, 1.0]) + np.zeros((5, 1))  # .99 halfway from level 8 to 16
    frame = table(values, train_accuracy=reached)
    place = PeakPlace(metric="test_accuracy", arm="arm", trough=True, other="train_accuracy", reaches=0.99)
    assert sample(frame, place, ok_only=True).values == pytest.approx([-0.5] * 5)
    fixed = PeakPlace(metric="test_accuracy", arm="arm", trough=True, reaches=32.0)
    assert sample(frame, fixed, ok_only=True).values == pytest.approx([-2.0] * 5)
    never = place.model_copy(update={"reaches": 2.0})
    found = sample(frame, never, ok_only=True)
    assert (len(found.values), found.unusable, found.undefined) == (0, 0, 5)


@pytest.mark.parametrize("everywhere", [0.5, 1.0])
def test_a_seed_without_a_threshold_leaves_the_place_of_its_peak_open(everywhere: float) -> None:
    """It never fits the labels, or fits them from the first level on."""
    reached = np.array([0.5, 0.7, 0.9, 0.98, 1.0, 1.0]) + np.zeros((5, 1))
    reached[1] = everywhere
    frame = table(curves([0.5, 0.4, 0.45, 0.6, 0.42, 0.3], sd=0.0), train_accuracy=reached)
    place = PeakPlace(metric="test_accuracy", arm="arm", trough=True, other="train_accuracy", reaches=0.99)
    (found,) = judge(frame, [claim(place, test="equivalence", margin=0.6)], generator=numpy_generator(0, "judge"))
    assert (found.verdict, found.n) == ("inconclusive", 4)
    assert "in 1 of 5 seeds train_accuracy does not get to 0.99" in found.reason
    assert "a wider range of levels is needed" in found.reason


def test_two_levels_are_too_few_for_a_peak() -> None:
    frame = table(curves([0.5, 0.4]))
    place = PeakPlace(metric="test_accuracy", arm="arm", reaches=1.0)
    reasons = [each.reason for each in judge(frame, [claim(), claim(place)], generator=numpy_generator(0, "judge"))]
    assert reasons == ["the runs are of 2 levels; at least 3 are needed"] * 2


def test_a_peak_needs_three_levels_each_given_once() -> None:
    for levels in ((1.0, 2.0), (1.0, 2.0, 2.0)):
        with pytest.raises(ValueError, match="at least three, each given once"):
            Peak(metric="test_accuracy", arm="arm", levels=levels)
