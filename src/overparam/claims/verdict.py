"""Claim × runs → verdict, by rules that were fixed before the runs.

Superiority is supported if the 95 % t interval lies on the claimed side of the null; it is refuted if the interval
lies beyond the margin on the other side, or if equivalence to the null holds. Equivalence is supported by TOST and
refuted by an interval outside ±margin. Non-inferiority is supported if the interval lies above −margin, refuted if it
lies below. All else is inconclusive.

Each claim has a p for and a p against it. Over the confirmatory claims of a study Holm's correction is applied to
each kind, so that a wrong support has a chance of at most 5 %, and so has a wrong refutation. An effect above the null
and below the margin can satisfy both rules: it is supported if the corrected p for it is below .05, else refuted as too
small, and its interval stands beside the verdict.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl

from overparam.claims.claim import Claim
from overparam.claims.comparisons import Direction, effect_size, holm, no_spread, paired_t, sign_flip, tost, welch
from overparam.claims.estimand import Concordance, Difference, Every, Mean, Peak, PeakPlace, PerSeed
from overparam.claims.intervals import Interval, bca_interval, sampling_error, t_interval
from overparam.claims.power import seeds_needed
from overparam.claims.sample import Sample, failure_rates, rows_of, sample

Decision = Literal["supported", "refuted", "inconclusive"]
ALPHA = 0.05
FEWEST = 3  # pairs below which nothing is decided
EQUIVALENT = "effect is smaller than the margin (equivalence test)"


@dataclass(frozen=True)
class Verdict:
    """What the runs say about a claim. `interval` and the p values are the primary analysis on ok runs, paired by seed.

    `p` speaks for the claim, `p_against` against it; `p_holm` and `p_against_holm` are their adjusted values. `shown`
    is what the interval estimates: the claim's estimand, or the part of it that decides.
    """

    claim: Claim
    verdict: Decision
    reason: str
    shown: PerSeed
    interval: Interval
    bca: Interval
    all_runs: Interval
    p: float | None
    p_against: float | None
    p_holm: float | None
    p_against_holm: float | None
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
    """Verdicts of a study's claims; Holm's correction runs over the confirmatory ones, decided or not."""
    drafts = [_measure(frame, claim, generator) for claim in claims]  # a claim with an obstacle has p = None
    family = [i for i, draft in enumerate(drafts) if draft.claim.confirmatory]
    adjusted_for = holm([_or_one(drafts[i].p) for i in family])
    adjusted_against = holm([_or_one(drafts[i].p_against) for i in family])
    for i, p, p_against in zip(family, adjusted_for, adjusted_against, strict=True):
        if drafts[i].p is not None:
            drafts[i] = replace(drafts[i], p_holm=p, p_against_holm=p_against)
    return tuple(_explained(_decide(draft), len(family) if draft.claim.confirmatory else 1) for draft in drafts)


def _or_one(p: float | None) -> float:
    return 1.0 if p is None else p


def _measure(frame: pl.DataFrame, claim: Claim, generator: np.random.Generator) -> Verdict:
    """Everything but the decision. `reason` is what stands in the way of one, if anything does."""
    if isinstance(claim.estimand, Every):
        return _weakest(frame, claim, claim.estimand.parts, generator)
    return _measure_one(frame, claim, claim.estimand, generator)


def _weakest(frame: pl.DataFrame, claim: Claim, parts: Sequence[Difference], generator: np.random.Generator) -> Verdict:
    """Intersection–union: every part must hold, so the largest p speaks for all, at no further correction.

    One part refuted refutes the whole; the smallest of the k p values against is multiplied by k (Bonferroni). As for a
    single claim the p for decides first: a part that holds, by however little, refutes nothing.
    """
    drafts = [_measure_one(frame, claim, part, generator) for part in parts]
    p_for = [math.inf if draft.p is None else draft.p for draft in drafts]
    against = [1.0 if p < ALPHA else _or_one(draft.p_against) for p, draft in zip(p_for, drafts, strict=True)]
    weakest, hardest = p_for.index(max(p_for)), against.index(min(against))
    if drafts[weakest].p is None:
        return drafts[weakest]
    p_against = min(1.0, len(parts) * against[hardest])
    shown, word = (hardest, "most adverse") if p_against < ALPHA else (weakest, "weakest")
    note = f"shown is the {word} of {len(parts)} parts, {parts[shown].metric}"
    found = replace(drafts[shown], p=drafts[weakest].p, p_against=p_against)
    return replace(found, caveats=(*found.caveats, note))


def _measure_one(frame: pl.DataFrame, claim: Claim, estimand: PerSeed, generator: np.random.Generator) -> Verdict:
    found = sample(frame, estimand, ok_only=True)
    values = found.values
    interval = t_interval(values)
    everyone = sample(frame, estimand, ok_only=False)
    obstacle = _obstacle(estimand, found)
    flip_null = -_sign(claim) * claim.margin + claim.null if claim.test == "noninferiority" else claim.null
    directed = claim.test != "equivalence"
    return Verdict(
        claim=claim,
        verdict="inconclusive",
        reason=obstacle or "",
        shown=estimand,
        interval=interval,
        bca=bca_interval(values, generator=generator),
        all_runs=t_interval(everyone.values),
        p=None if obstacle else _p_for(claim, values) if found.p is None else found.p,
        p_against=None if obstacle else _p_against(claim, values),
        p_holm=None,
        p_against_holm=None,
        sign_flip_p=sign_flip(values, flip_null, claim.direction, generator=generator) if directed else None,
        welch_p=welch(*found.groups) if len(found.groups) == 2 else None,
        effect_size=effect_size(values, claim.null),
        sampling_error=_sampling_error(frame, estimand),
        caveats=(*_caveats(found, interval), *_called_by_failures(found, everyone)),
        agrees_with_paper=_agreement(claim, interval),
    )


def _sign(claim: Claim) -> float:
    return 1.0 if claim.direction == "greater" else -1.0


def _p_for(claim: Claim, values: np.ndarray) -> float:
    """The p that supports the claim; one-sided tests of an interval's side are doubled to match its two sides."""
    match claim.test:
        case "superiority":
            return _beyond(values, claim.null, claim.direction)
        case "equivalence":
            return tost(values - claim.null, claim.margin)
        case "noninferiority":
            return _beyond(values, claim.null - _sign(claim) * claim.margin, claim.direction)


def _p_against(claim: Claim, values: np.ndarray) -> float:
    """The p that refutes the claim: for superiority the smaller of "opposite" and "equivalent", which exclude each
    other.
    """
    opposite: Direction = "less" if claim.direction == "greater" else "greater"
    far = claim.null - _sign(claim) * claim.margin
    match claim.test:
        case "superiority":
            return min(_beyond(values, far, opposite), tost(values - claim.null, claim.margin))
        case "equivalence":
            upper, lower = claim.null + claim.margin, claim.null - claim.margin
            return min(_beyond(values, upper, "greater"), _beyond(values, lower, "less"))
        case "noninferiority":
            return _beyond(values, far, opposite)


def _beyond(values: np.ndarray, bound: float, direction: Direction) -> float:
    """p below .05 exactly if the 95 % interval lies beyond the bound on that side."""
    return min(1.0, 2.0 * paired_t(values, bound, direction))


def _sampling_error(frame: pl.DataFrame, estimand: PerSeed) -> float | None:
    """Standard error that the finite test set adds to an accuracy, or to a difference as if errors were independent.

    `None` for all else, also for a log ratio, which is not counted in accuracy.
    """
    contrast = isinstance(estimand, Difference) and estimand.other is None and estimand.scale == "linear"
    if not (contrast or isinstance(estimand, Mean)) or estimand.metric != "test_accuracy":
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
    if claim.paper_value is None or not claim.comparable or math.isnan(interval.lower):
        return ""
    inside = interval.lower <= claim.paper_value <= interval.upper
    return f"the paper's value lies {'inside' if inside else 'outside'} the interval"


def _caveats(found: Sample, interval: Interval) -> tuple[str, ...]:
    counts = {
        s: sum(level.count(s) for level in found.statuses) for s in ("diverged", "collapsed", "censored", "missing")
    }
    notes = [f"{count} {status} run{'s' if count > 1 else ''}" for status, count in counts.items() if count]
    if interval.n >= FEWEST and no_spread(found.values):
        notes.append("all seeds give the same value, as at a ceiling: p only says on which side of the bound it lies")
    return tuple(notes)


def _called_by_failures(ok: Sample, everyone: Sample) -> tuple[str, ...]:
    """What the runs that failed would have made of a peak, had they been counted."""
    if everyone.p is None or everyone.p >= ALPHA or (ok.p is not None and ok.p < ALPHA):
        return ()
    return ("with the runs that failed counted in, a peak would have been called",)


def _explained(verdict: Verdict, family: int) -> Verdict:
    """An open verdict says what n would settle it, at the strictest step of Holm's correction."""
    if verdict.verdict != "inconclusive" or verdict.n < 2:
        return verdict
    if _beyond_null(verdict.claim, verdict.interval):
        return verdict  # more seeds would not speak for the claim
    needed = seeds_needed(verdict.claim, verdict.interval.sd, family=family)
    if needed is None:
        note = "underpowered: more than 1,000 seeds would be needed at this spread"
    elif needed > verdict.n:
        note = f"underpowered: {needed} seeds, not {verdict.n}, give 80 % power for the margin at this spread"
    else:
        return verdict
    return replace(verdict, caveats=(*verdict.caveats, note))


def _decide(draft: Verdict) -> Verdict:
    """The p for the claim decides first, then the p against it; an obstacle leaves the claim open."""
    if draft.reason:
        return draft
    adjusted = draft.p_holm, draft.p_against_holm
    p, p_against = adjusted if draft.claim.confirmatory else (draft.p, draft.p_against)
    assert p is not None and p_against is not None
    verdict: Decision = "supported" if p < ALPHA else "refuted" if p_against < ALPHA else "inconclusive"
    return replace(draft, verdict=verdict, reason=_reason(draft, verdict))


def _reason(draft: Verdict, verdict: Decision) -> str:
    claim, interval = draft.claim, draft.interval
    if verdict == "inconclusive":
        if _beyond_null(claim, interval):
            return "the interval lies on the other side of the null, but not beyond the margin that refutes"
        alone = min(_or_one(draft.p), _or_one(draft.p_against)) < ALPHA
        corrected = " once all claims of the study are corrected for" if alone else ""
        return f"the interval settles neither the claim nor its opposite at this n{corrected}"
    match claim.test, verdict:
        case "superiority", "supported" if isinstance(claim.estimand, Peak):
            return "rise and fall both hold in the seeds that the peak was not chosen on"
        case "superiority", "supported":
            return "the interval lies on the claimed side of the null"
        case "superiority", _:
            opposite = max(_sign(claim) * (bound - claim.null) for bound in (interval.lower, interval.upper))
            far = opposite < -claim.margin
            return f"the {'interval lies beyond the margin on the other side' if far else EQUIVALENT}"
        case "equivalence", "supported":
            return "the equivalence test puts the difference inside the margin"
        case "equivalence", _:
            return "the interval lies outside the margin"
        case _, "supported":
            return "the interval lies above the margin of non-inferiority"
        case _:
            return "the interval lies below the margin of non-inferiority"


def _beyond_null(claim: Claim, interval: Interval) -> bool:
    """Whether the interval lies on the side of the null that is not claimed."""
    nearest = max(_sign(claim) * (bound - claim.null) for bound in (interval.lower, interval.upper))
    return claim.test == "superiority" and nearest < 0.0


def _obstacle(estimand: PerSeed, found: Sample) -> str | None:
    """Reasons not to decide."""
    statuses = [status for level in found.statuses for status in level]
    if not statuses or (missing := statuses.count("missing")) == len(statuses):
        return "no run of this claim is finished"
    if missing:
        return f"{missing} of {len(statuses)} runs are missing"
    if "censored" in statuses:
        return (
            f"{statuses.count('censored')} of {len(statuses)} runs did not reach their target loss, or their best one"
        )
    rates = failure_rates(found)
    if max(rates) != min(rates):
        return f"failure rates differ between the levels ({min(rates):.0%} to {max(rates):.0%})"
    alone = isinstance(estimand, Mean | Difference) and len(rates) == 1  # no other cell to fail as often
    if alone and max(rates) > 0.0:
        return f"{max(rates):.0%} of the runs failed; a mean of the others would not be that of all seeds"
    if found.unusable:
        return f"{found.unusable} finished runs have no usable value: not measured, or not positive on a log scale"
    complete = len(found.values) + found.undefined
    if complete < FEWEST:
        return f"only {complete} complete seeds; at least {FEWEST} are needed"
    return _undefined(estimand, found) if found.undefined else None


def _undefined(estimand: PerSeed, found: Sample) -> str:
    """Why seeds have no value although all their runs ended well and were measured."""
    levels, least = len(found.statuses), estimand.least_levels
    if levels < least:
        return f"the runs are of {levels} level{'s' if levels > 1 else ''}; at least {least} are needed"
    share = f"{found.undefined} of {len(found.values) + found.undefined} seeds"
    match estimand:
        case PeakPlace(other=str(other), reaches=reaches):
            crossing = f"does not get to {reaches:g} within the levels, or is there from the first one on"
            return f"in {share} {other} {crossing}; a wider range of levels is needed"
        case Concordance(metric=metric, other=other):
            return f"{metric} or {other} is equal in all seeds of a level, or in all but one, and cannot be ranked"
        case _:
            return f"in {share} the value is not a finite number"
