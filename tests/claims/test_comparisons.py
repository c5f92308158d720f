"""Tests and intervals against scipy, statsmodels and simulations."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from overparam.claims.comparisons import (
    Direction,
    effect_size,
    holm,
    paired_t,
    sign_flip,
    slopes_per_doubling,
    tost,
    welch,
)
from overparam.claims.intervals import Values, bca_interval, sampling_error, t_interval
from overparam.claims.power import power_of_t, power_of_tost
from overparam.foundations.numpy_generators import numpy_generator

NUMBERS = st.lists(st.floats(-100, 100, allow_nan=False), min_size=3, max_size=12)
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(values=NUMBERS)
def test_t_interval_is_scipys(values: list[float]) -> None:
    found = t_interval(values)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95) if np.ptp(values) > 1e-6 else None
    assert found.n == len(values)
    if expected is not None:
        assert (found.lower, found.upper) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-9)


def test_intervals_of_too_few_values_have_no_bounds() -> None:
    assert math.isnan(t_interval([]).estimate)
    assert t_interval([2.0]).estimate == 2.0
    assert math.isnan(t_interval([2.0]).lower)


def test_bca_is_inside_the_data_and_labelled() -> None:
    x = np.array([1.0, 2.0, 4.0, 8.0, 9.0])
    found = bca_interval(x, generator=numpy_generator(0, "test"))
    assert 1.0 < found.lower < found.estimate < found.upper < 9.0
    assert "undercovers below n = 20" in found.method
    same = bca_interval(np.ones(5), generator=numpy_generator(0, "test"))
    assert (same.lower, same.upper) == (1.0, 1.0)


@given(p_values=P_VALUES)
def test_holm_is_the_largest_of_the_products_up_to_each_rank(p_values: list[float]) -> None:
    """Holm (1979): p(j) times the number of hypotheses that are left at j, its maximum over all p(j) up to this one."""
    adjusted, m, ranked = holm(p_values), len(p_values), sorted(p_values)
    for raw, found in zip(p_values, adjusted, strict=True):
        expected = max((m - j) * p for j, p in enumerate(ranked) if p <= raw)
        assert raw <= found == pytest.approx(min(1.0, expected))


def test_holm_is_statsmodels() -> None:
    """A few lists, long and short, some with ties: each call of statsmodels collects all garbage."""
    from statsmodels.stats.multitest import multipletests

    generator = numpy_generator(0, "holm")
    many = generator.uniform(size=200) ** 4
    for p_values in (many, many.round(2), generator.uniform(0.0, 0.1, 6), np.array([0.04, 0.04, 0.01]), many[:1]):
        assert holm(p_values.tolist()) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


@given(values=NUMBERS, margin=st.floats(0.1, 50))
def test_tost_is_statsmodels(values: list[float], margin: float) -> None:
    from statsmodels.stats.weightstats import DescrStatsW

    if np.std(values) > 1e-6:
        expected = DescrStatsW(values).ttost_mean(-margin, margin)[0]
        assert tost(np.array(values), margin) == pytest.approx(expected, abs=1e-9)


def test_paired_t_of_equal_differences_has_no_nan() -> None:
    assert paired_t(np.ones(4)) == 0.0
    assert paired_t(-np.ones(4)) == 1.0
    assert paired_t(np.zeros(4)) == 0.5


@pytest.mark.parametrize("direction", ["greater", "less"])
@pytest.mark.parametrize(
    ("values", "null"),
    [
        (np.full(5, 1.9e-16), 0.0),
        (np.full(5, 0.3), 0.1 + 0.2),
        (3e5 + np.spacing(3e5) * np.array([0.0, 1.0, 1.0, 0.0]), 3e5),
    ],
)
def test_what_lies_at_the_bound_but_for_rounding_is_on_neither_side(
    values: Values, null: float, direction: Direction
) -> None:
    assert paired_t(values, null, direction) == 0.5
    assert math.isnan(effect_size(values, null))


def test_a_size_of_rounding_is_no_effect_size() -> None:
    assert math.isnan(effect_size(np.array([0.3, 0.1 + 0.2, 0.3])))
    assert effect_size(np.array([1.0, 2.0, 3.0]), 1.0) == pytest.approx(1.0 - 3 / 7)


def test_equal_values_have_no_slope_at_all() -> None:
    """Levels that are not evenly spaced: their distances from their mean do not sum to 0 exactly."""
    found = slopes_per_doubling(np.array([16.0, 32.0, 128.0]), np.array([[1.0] * 3, [0.7] * 3, [4.0, 5.0, 7.0]]))
    assert found[:2].tolist() == [0.0, 0.0] and found[2] == pytest.approx(1.0)


@given(values=st.lists(st.integers(-50, 50), min_size=6, max_size=8))
@settings(max_examples=10)
def test_sign_flip_is_scipys_exact_permutation_test(values: list[int]) -> None:
    expected = stats.permutation_test(
        (np.array(values, dtype=np.float64),),
        lambda x: float(np.mean(x)),
        permutation_type="samples",
        alternative="greater",
        n_resamples=10**6,
        vectorized=False,
    ).pvalue
    found = sign_flip(np.array(values, dtype=float), generator=numpy_generator(0, "flip"))
    assert found == pytest.approx(min(1.0, 2 * expected), abs=1e-9)


def test_sign_flip_of_many_pairs_is_near_the_t_test() -> None:
    x = numpy_generator(0, "many").normal(0.4, 1.0, 30)
    found = sign_flip(x, generator=numpy_generator(1, "flip"))
    assert found == pytest.approx(2 * paired_t(x), abs=0.01)
    assert found == sign_flip(x, generator=numpy_generator(1, "flip"))


def test_sign_flip_says_nothing_below_six() -> None:
    generator = numpy_generator(0, "flip")
    assert sign_flip(np.ones(5), generator=generator) is None
    assert sign_flip(-np.ones(6), direction="less", generator=generator) == 2 / 64


def test_slopes_are_fitted_per_seed() -> None:
    levels = np.array([8.0, 32.0, 128.0])
    values = np.array([[1.0, 0.5, 0.1], [0.0, 0.0, 3.0]])
    expected = [np.polyfit(np.log2(levels), row, 1)[0] for row in values]
    assert slopes_per_doubling(levels, values).tolist() == pytest.approx(expected)


def test_slope_intervals_cover_at_five_seeds() -> None:
    """4,000 experiments of 5 seeds × 5 levels: the interval over per-seed slopes covers 95 % ± 3 s.e."""
    generator = numpy_generator(0, "coverage")
    levels = np.array([32.0, 64.0, 128.0, 256.0, 512.0])
    seeds = generator.normal(size=(4000, 5, 1)) + generator.normal(size=(4000, 5, 5)) - 0.3 * np.log2(levels)
    covered = 0
    for experiment in seeds:
        found = t_interval(slopes_per_doubling(levels, experiment))
        covered += found.lower <= -0.3 <= found.upper
    assert abs(covered / 4000 - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 4000)


def test_welch_and_effect_size() -> None:
    a, b = np.array([1.0, 2.0, 4.0]), np.array([0.0, 1.0, 1.5])
    assert welch(a, b) == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert welch(np.ones(3), np.ones(3)) is None
    assert effect_size(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0 * (1 - 3 / 7))
    assert math.isnan(effect_size(np.ones(3)))


@pytest.mark.parametrize(("effect", "n"), [(1.0, 5), (0.5, 20), (2.0, 5)])
def test_power_is_what_simulation_finds(effect: float, n: int) -> None:
    x = numpy_generator(0, "power").normal(effect, 1.0, size=(20_000, n))
    t = x.mean(1) / (x.std(1, ddof=1) / math.sqrt(n))
    simulated = float(np.mean(t > stats.t.ppf(0.975, n - 1)))
    assert power_of_t(effect, 1.0, n) == pytest.approx(simulated, abs=4 * math.sqrt(0.25 / 20_000))


def test_power_of_equivalence_grows_with_margin_and_n() -> None:
    assert power_of_tost(1.0, 1.0, 5) < power_of_tost(2.0, 1.0, 5) < power_of_tost(2.0, 1.0, 10) <= 1.0
    assert power_of_tost(1.0, 1.0, 1) == power_of_t(1.0, 1.0, 1) == 0.0


def test_sampling_error_is_binomial() -> None:
    assert sampling_error(0.9, 10_000) == pytest.approx(0.003)
