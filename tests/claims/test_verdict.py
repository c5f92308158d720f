"""Verdicts: every rule, every reason not to decide, and the error rate under the null."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overparam.claims.claim import Claim
from overparam.claims.estimand import Difference, Point, Slope
from overparam.claims.verdict import Verdict, judge
from overparam.foundations.numpy_generators import numpy_generator

A, B = "32", "1024"


def frame(
    a: list[float], b: list[float], status_a: str | list[str] = "ok", status_b: str | list[str] = "ok"
) -> pl.DataFrame:
    rows = []
    for level, values, statuses in ((32.0, a, status_a), (1024.0, b, status_b)):
        for seed, value in enumerate(values):
            status = statuses if isinstance(statuses, str) else statuses[seed]
            metric = None if status == "missing" else value
            rows.append(
                {
                    "arm": "arm",
                    "level": format(level, "g"),
                    "level_value": level,
                    "seed": seed,
                    "status": status,
                    "test_accuracy": metric,
                    "num_test": 1000,
                }
            )
    return pl.DataFrame(rows, schema_overrides={"test_accuracy": pl.Float64})


def claim(**fields: object) -> Claim:
    difference = Difference(metric="test_accuracy", a=Point(arm="arm", level=32), b=Point(arm="arm", level=1024))
    base = {
        "name": "c",
        "sentence": "s",
        "estimand": difference,
        "test": "superiority",
        "margin": 0.01,
        "pilot_sd": 0.01,
    }
    return Claim.model_validate(base | fields)


def verdict(table: pl.DataFrame, *claims: Claim) -> Verdict:
    return judge(table, claims or (claim(),), generator=numpy_generator(0, "test"))[0]


NOISE = np.array([0.001, -0.001, 0.0005, -0.0005, 0.0])
BASE = np.full(5, 0.8)


def shifted(by: float, scale: float = 1.0) -> pl.DataFrame:
    return frame(list(BASE + by + scale * NOISE), list(BASE))


@pytest.mark.parametrize(
    ("by", "scale", "fields", "expected"),
    [
        (0.02, 1, {}, "supported"),
        (-0.02, 1, {}, "refuted"),
        (0.0, 1, {}, "refuted"),
        (0.0, 50, {}, "inconclusive"),
        (0.005, 20, {}, "inconclusive"),
        (-0.02, 1, {"direction": "less"}, "supported"),
        (0.02, 1, {"direction": "less"}, "refuted"),
        (0.02, 1, {"null": 0.015}, "supported"),
        (0.02, 1, {"null": 0.02}, "refuted"),
        (0.0, 1, {"test": "equivalence"}, "supported"),
        (0.02, 1, {"test": "equivalence"}, "refuted"),
        (-0.02, 1, {"test": "equivalence"}, "refuted"),
        (0.009, 4, {"test": "equivalence"}, "inconclusive"),
        (-0.005, 1, {"test": "noninferiority"}, "supported"),
        (-0.02, 1, {"test": "noninferiority"}, "refuted"),
        (-0.0099, 1, {"test": "noninferiority"}, "inconclusive"),
        (0.005, 1, {"test": "noninferiority", "direction": "less"}, "supported"),
    ],
)
def test_rules(by: float, scale: float, fields: dict[str, object], expected: str) -> None:
    assert verdict(shifted(by, scale), claim(**fields)).verdict == expected


def test_missing_runs_leave_it_open() -> None:
    found = verdict(frame(list(BASE + 0.02 + NOISE), list(BASE), "ok", ["ok"] * 4 + ["missing"]))
    assert (found.verdict, found.reason) == ("inconclusive", "1 of 10 runs are missing")
    nothing = verdict(frame(list(BASE), list(BASE), "missing", "missing"))
    assert nothing.reason == "no run of this claim is finished"


def test_a_censored_pair_leaves_it_open() -> None:
    found = verdict(frame(list(BASE + 0.02 + NOISE), list(BASE), "ok", ["ok"] * 4 + ["censored"]))
    assert (found.verdict, found.n) == ("inconclusive", 4)
    assert "did not reach their target loss" in found.reason
    assert "1 censored run" in found.caveats


def test_unequal_failure_rates_leave_it_open_and_equal_ones_do_not() -> None:
    table = frame(list(BASE + 0.02 + NOISE), list(BASE), "ok", ["diverged", "ok", "ok", "ok", "ok"])
    assert "failure rates differ" in verdict(table).reason
    both = frame(
        list(BASE + 0.02 + NOISE),
        list(BASE),
        ["collapsed", "ok", "ok", "ok", "ok"],
        ["diverged", "ok", "ok", "ok", "ok"],
    )
    found = verdict(both)
    assert (found.verdict, found.n, found.all_runs.n) == ("supported", 4, 5)


def test_two_pairs_decide_nothing() -> None:
    assert "only 2 complete seeds" in verdict(frame([0.9, 0.91], [0.8, 0.8])).reason


def test_underpowered_verdicts_say_what_n_would_do() -> None:
    caveats = verdict(shifted(0.0, 50)).caveats
    assert any("seeds, not 5, give 80 % power" in note for note in caveats)


def test_papers_value_is_compared_not_tested() -> None:
    near = verdict(shifted(0.02), claim(paper_value=0.02, comparable=True))
    far = verdict(shifted(0.02), claim(paper_value=0.5, comparable=True))
    assert "inside" in near.agrees_with_paper
    assert "outside" in far.agrees_with_paper
    assert near.verdict == far.verdict
    assert verdict(shifted(0.02), claim(paper_value=0.02)).agrees_with_paper == ""
    assert verdict(shifted(0.02)).agrees_with_paper == ""


def test_holm_runs_over_confirmatory_claims_only() -> None:
    table = shifted(0.0016)
    alone = judge(table, [claim()], generator=numpy_generator(0, "t"))[0]
    extra = [claim(name=f"c{i}", direction="less", confirmatory=False) for i in range(4)]
    with_descriptive = judge(table, [claim(), *extra], generator=numpy_generator(0, "t"))
    with_confirmatory = judge(
        table, [claim()] + [claim(name=f"c{i}") for i in range(4)], generator=numpy_generator(0, "t")
    )
    assert alone.p_holm == with_descriptive[0].p_holm == alone.p
    assert with_descriptive[1].p_holm is None
    assert alone.p is not None and with_confirmatory[0].p_holm == pytest.approx(5 * alone.p)


def test_a_claim_that_cannot_be_decided_still_counts_for_holm() -> None:
    """Its leftover pairs may look certain; they must not free the others of a correction."""
    censored = frame(list(BASE + 0.02 + NOISE), list(BASE), "ok", ["ok"] * 4 + ["censored"])
    table = pl.concat([shifted(0.0016), censored.with_columns(arm=pl.lit("far"))])
    found = judge(table, [claim(), claim(name="open", estimand=difference("far"))], generator=numpy_generator(0, "t"))
    assert found[0].p is not None and found[0].p_holm == pytest.approx(2 * found[0].p)
    assert (found[1].p, found[1].verdict) == (None, "inconclusive")


def test_equal_values_are_called_a_ceiling() -> None:
    found = verdict(frame(list(BASE), list(BASE)), claim(test="noninferiority"))
    assert found.verdict == "supported"
    assert any("same value" in note for note in found.caveats)
    assert not any("same value" in note for note in verdict(shifted(0.02)).caveats)


def test_a_log_ratio_has_no_sampling_error_of_an_accuracy() -> None:
    ratio = difference("arm").model_copy(update={"scale": "log"})
    assert verdict(shifted(0.02)).sampling_error is not None
    assert verdict(shifted(0.02), claim(estimand=ratio)).sampling_error is None


def test_slope_claims_fit_every_seed() -> None:
    slope = claim(estimand=Slope(metric="test_accuracy", arm="arm"), direction="less", margin=0.001)
    found = verdict(shifted(0.02), slope)
    assert found.verdict == "supported"
    assert found.interval.estimate == pytest.approx(-0.02 / 5)
    assert found.welch_p is None


VALUES = st.lists(st.floats(0.5, 0.9), min_size=4, max_size=6)


@given(a=VALUES, by=st.floats(-0.05, 0.05), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_swapping_sides_and_direction_changes_nothing(a: list[float], by: float, seed: int) -> None:
    b = list(np.array(a) + by + numpy_generator(seed, "t").normal(0, 0.01, len(a)))
    swapped = Difference(metric="test_accuracy", a=Point(arm="arm", level=1024), b=Point(arm="arm", level=32))
    first = verdict(frame(a, b))
    second = verdict(frame(a, b), claim(estimand=swapped, direction="less"))
    assert first.verdict == second.verdict
    assert first.interval.lower == pytest.approx(-second.interval.upper)


@given(seed=st.integers(0, 99))
@settings(max_examples=20)
def test_row_order_changes_nothing(seed: int) -> None:
    table = shifted(0.003, 3)
    mixed = table.sample(fraction=1.0, shuffle=True, seed=seed)
    assert verdict(mixed) == verdict(table)


def test_false_support_is_rare_under_the_null() -> None:
    """200 null studies of six claims each: at most 5 % (+ 3 standard errors) support anything (Holm)."""
    generator = numpy_generator(0, "null")
    claims = [claim(name=f"c{i}", estimand=difference(f"arm{i}")) for i in range(6)]
    wrong = 0
    for _ in range(200):
        parts = []
        for i in range(6):
            a, b = generator.normal(0.8, 0.01, 5), generator.normal(0.8, 0.01, 5)
            parts.append(frame(list(a), list(b)).with_columns(arm=pl.lit(f"arm{i}")))
        found = judge(pl.concat(parts), claims, generator=numpy_generator(0, "b"))
        wrong += any(v.verdict == "supported" for v in found)
    assert wrong / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_false_refutation_is_rare_at_the_margin() -> None:
    """200 studies of six claims whose true effect is the margin: at most 5 % (+ 3 standard errors) refute anything."""
    generator = numpy_generator(0, "margin")
    claims = [claim(name=f"c{i}", estimand=difference(f"arm{i}")) for i in range(6)]
    wrong = 0
    for _ in range(200):
        tables = []
        for i in range(6):
            b = generator.normal(0.8, 0.001, 5)
            a = b + generator.normal(0.01, 0.001, 5)
            tables.append(frame(list(a), list(b)).with_columns(arm=pl.lit(f"arm{i}")))
        found = judge(pl.concat(tables), claims, generator=numpy_generator(0, "b"))
        wrong += any(v.p_against_holm is not None and v.p_against_holm < 0.05 for v in found)
    assert wrong / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_refutations_are_corrected_too() -> None:
    """An effect that is refuted alone is open among five claims that are not."""
    weak, open_ones = shifted(0.0, 9), [claim(name=f"c{i}", estimand=difference("far")) for i in range(5)]
    table = pl.concat([weak, shifted(0.0, 100).with_columns(arm=pl.lit("far"))])
    alone = judge(table, [claim()], generator=numpy_generator(0, "t"))[0]
    among = judge(table, [claim(), *open_ones], generator=numpy_generator(0, "t"))[0]
    assert (alone.verdict, among.verdict) == ("refuted", "inconclusive")
    assert alone.p_against is not None and among.p_against_holm == pytest.approx(6 * alone.p_against)
    assert "corrected for" in among.reason


def test_a_small_effect_that_holm_takes_away_is_refuted_as_too_small() -> None:
    """Alone it is supported; among six claims only its smallness is certain."""
    others = [claim(name=f"c{i}", estimand=difference("far")) for i in range(5)]
    table = pl.concat([shifted(0.0016), shifted(0.0, 100).with_columns(arm=pl.lit("far"))])
    alone, among = (
        judge(table, each, generator=numpy_generator(0, "t"))[0] for each in ([claim()], [claim(), *others])
    )
    assert (alone.verdict, among.verdict) == ("supported", "refuted")
    assert among.reason == "the effect is smaller than the margin (equivalence test)"


def test_a_real_effect_below_the_margin_is_supported() -> None:
    found = verdict(shifted(0.003))
    assert found.p is not None and found.p_against is not None
    assert found.verdict == "supported" and max(found.p, found.p_against) < 0.05


def difference(arm: str) -> Difference:
    return Difference(metric="test_accuracy", a=Point(arm=arm, level=32), b=Point(arm=arm, level=1024))
