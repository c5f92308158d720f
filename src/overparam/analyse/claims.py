"""Claim × runs → verdict, by rules that were fixed before the runs.

Superiority is supported if the 95 % t interval lies on the claimed side of the null and Holm's p is below .05; it
is refuted if the interval lies beyond the margin on the other side, or if equivalence to the null holds.
Equivalence is supported by TOST and refuted by an interval outside ±margin. Non-inferiority is supported if the
interval lies above −margin, refuted if it lies below. All else is inconclusive.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl

from overparam.analyse.comparisons import effect_size, holm, paired_t, sign_flip, tost, welch
from overparam.analyse.frame import Sample, failure_rates, rows_of, sample
from overparam.analyse.intervals import Interval, bca_interval, sampling_error, t_interval
from overparam.analyse.power import seeds_needed
from overparam.specs.study import Claim, Difference

Outcome = Literal["supported", "refuted", "inconclusive"]
ALPHA = 0.05
FEWEST = 3  # pairs below which nothing is decided


@dataclass(frozen=True)
class Verdict:
    """What the runs say about a claim. `interval` and `p` are the primary analysis on ok runs, paired by seed."""

    claim: Claim
    verdict: Outcome
    reason: str
    interval: Interval
    bca: Interval
    all_runs: Interval
    p: float | None
    p_holm: float | None
    sign_flip_p: float | None
    welch_p: float | None
    effect_size: float
    sampling_error: float | None
    caveats: tuple[str, ...]
    agrees_with_paper: str

    @property
    def n(self) -> int:
        return self.interval.n


def judge(frame: pl.DataFrame, claims: Sequence[Claim], *, generator: np.random.Generator) -> tuple[Verdict, ...]:
    """Verdicts of a study's claims; Holm's correction runs over the confirmatory ones."""
    drafts = [_measure(frame, claim, generator) for claim in claims]
    family = [i for i, draft in enumerate(drafts) if draft.claim.confirmatory]
    p_values = [1.0 if (p := drafts[i].p) is None else p for i in family]
    for i, adjusted in zip(family, holm(p_values), strict=True):
        drafts[i] = replace(drafts[i], p_holm=adjusted if drafts[i].p is not None else None)
    return tuple(_decide(draft, sample(frame, draft.claim.estimand, ok_only=True)) for draft in drafts)


def _measure(frame: pl.DataFrame, claim: Claim, generator: np.random.Generator) -> Verdict:
    """Everything but the decision."""
    found = sample(frame, claim.estimand, ok_only=True)
    values = found.values
    interval = t_interval(values)
    enough = len(values) >= FEWEST
    flip_null = -_sign(claim) * claim.margin + claim.null if claim.test == "noninferiority" else claim.null
    directed = claim.test != "equivalence"
    return Verdict(
        claim=claim,
        verdict="inconclusive",
        reason="",
        interval=interval,
        bca=bca_interval(values, generator=generator),
        all_runs=t_interval(sample(frame, claim.estimand, ok_only=False).values),
        p=_p_value(claim, values) if enough else None,
        p_holm=None,
        sign_flip_p=sign_flip(values, flip_null, claim.direction) if directed else None,
        welch_p=welch(*found.groups) if len(found.groups) == 2 else None,
        effect_size=effect_size(values),
        sampling_error=_sampling_error(frame, claim),
        caveats=_caveats(claim, found, interval),
        agrees_with_paper=_agreement(claim, interval),
    )


def _sign(claim: Claim) -> float:
    return 1.0 if claim.direction == "greater" else -1.0


def _p_value(claim: Claim, values: np.ndarray) -> float:
    """The p that belongs to the claim's test. Superiority doubles the one-sided p to match its two-sided interval."""
    match claim.test:
        case "superiority":
            return min(1.0, 2.0 * paired_t(values, claim.null, claim.direction))
        case "equivalence":
            return tost(values - claim.null, claim.margin)
        case "noninferiority":
            return min(1.0, 2.0 * paired_t(values, claim.null - _sign(claim) * claim.margin, claim.direction))


def _sampling_error(frame: pl.DataFrame, claim: Claim) -> float | None:
    """Standard error that the finite test set adds to a difference of accuracies, as if the errors were independent."""
    estimand = claim.estimand
    if not isinstance(estimand, Difference) or estimand.metric != "test_accuracy":
        return None
    errors = []
    for table in rows_of(frame, estimand):
        ok = table.filter((pl.col("status") == "ok") & pl.col("test_accuracy").is_not_null())
        if len(ok) == 0:
            return None
        accuracies = ok.sort("seed")["test_accuracy"].to_numpy()
        errors.append(sampling_error(float(np.mean(accuracies)), int(ok["num_test"][0])))
    return math.hypot(*errors)


def _agreement(claim: Claim, interval: Interval) -> str:
    if claim.paper_value is None or math.isnan(interval.lower):
        return ""
    inside = interval.lower <= claim.paper_value <= interval.upper
    return f"the paper's value lies {'inside' if inside else 'outside'} the interval"


def _caveats(claim: Claim, found: Sample, interval: Interval) -> tuple[str, ...]:
    notes = []
    counts = {
        s: sum(level.count(s) for level in found.statuses) for s in ("diverged", "collapsed", "censored", "missing")
    }
    notes += [f"{count} {status} run{'s' if count > 1 else ''}" for status, count in counts.items() if count]
    if interval.n >= 2:
        needed = seeds_needed(claim, interval.sd)
        if needed is None:
            notes.append("underpowered: more than 1,000 seeds would be needed at this spread")
        elif needed > interval.n:
            notes.append(
                f"underpowered: {needed} seeds, not {interval.n}, give 80 % power for the margin at this spread"
            )
    return tuple(notes)


def _decide(draft: Verdict, found: Sample) -> Verdict:
    """Reasons not to decide come first; then the rule of the claim's test."""
    if (obstacle := _obstacle(draft, found)) is not None:
        return replace(draft, verdict="inconclusive", reason=obstacle)
    p = draft.p_holm if draft.claim.confirmatory else draft.p
    assert p is not None
    verdict, reason = _rule(draft.claim, draft.interval, p, found.values)
    return replace(draft, verdict=verdict, reason=reason)


def _obstacle(draft: Verdict, found: Sample) -> str | None:
    statuses = [status for level in found.statuses for status in level]
    if not statuses or (missing := statuses.count("missing")) == len(statuses):
        return "no run of this claim is finished"
    if missing:
        return f"{missing} of {len(statuses)} runs are missing"
    if "censored" in statuses:
        return f"{statuses.count('censored')} of {len(statuses)} runs did not reach their target loss"
    rates = failure_rates(found)
    if max(rates) != min(rates):
        return f"failure rates differ between the levels ({min(rates):.0%} to {max(rates):.0%})"
    if draft.n < FEWEST:
        return f"only {draft.n} complete seeds; at least {FEWEST} are needed"
    return None


def _rule(claim: Claim, interval: Interval, p: float, values: np.ndarray) -> tuple[Outcome, str]:
    sign = _sign(claim)
    low, high = sorted((sign * (interval.lower - claim.null), sign * (interval.upper - claim.null)))
    δ = claim.margin
    match claim.test:
        case "superiority":
            if low > 0 and p < ALPHA:
                return "supported", "the interval lies on the claimed side and p is below .05"
            if high < -δ:
                return "refuted", "the interval lies beyond the margin on the other side"
            if tost(values - claim.null, δ) < ALPHA:
                return "refuted", "the effect is smaller than the margin (equivalence test)"
        case "equivalence":
            if p < ALPHA:
                return "supported", "the equivalence test puts the difference inside the margin"
            if low > δ or high < -δ:
                return "refuted", "the interval lies outside the margin"
        case "noninferiority":
            if low > -δ and p < ALPHA:
                return "supported", "the interval lies above the margin of non-inferiority"
            if high < -δ:
                return "refuted", "the interval lies below the margin of non-inferiority"
    return "inconclusive", "the interval settles neither the claim nor its opposite at this n"
