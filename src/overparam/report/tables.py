"""Frames and verdicts → rows of plain records, the same for HTML, CSV, LaTeX and JSON."""

from typing import Any

import polars as pl

from overparam.claims.correlations import Correlation, correlations
from overparam.claims.estimand import Concordance, level_text
from overparam.claims.intervals import Interval, t_interval
from overparam.claims.verdict import Verdict
from overparam.studies.study import Design

METRICS = ("test_accuracy", "train_accuracy", "gap", "train_loss", "test_loss")
EARLY = ("early_stop_accuracy", "early_stop_step")  # of designs with such a probe
STATUSES = ("diverged", "collapsed", "censored", "missing")
Row = dict[str, Any]


def cell_rows(design: Design, frame: pl.DataFrame) -> list[Row]:
    """One record per arm and level: t intervals over ok runs, means over all runs, and counts by status."""
    rows = []
    for arm in design.arms:
        for level in arm.levels:
            cell = frame.filter((pl.col("arm") == arm.name) & (pl.col("level") == level_text(level.value)))
            rows.append({"arm": arm.name, "title": arm.title, "group": arm.group, **_cell(cell, level.value)})
    return rows


def _cell(cell: pl.DataFrame, level: float | str) -> Row:
    ok = cell.filter(pl.col("status") == "ok")
    row: Row = {
        "level": level_text(level),
        "level_value": None if isinstance(level, str) else float(level),
        "n_ok": len(ok),
        "n_all": len(cell),
        "lr": cell["lr"][0] if len(cell) else None,
        "steps": _mean(cell["steps"]),
        "epochs": _mean(cell["epochs"]),
        **{status: int((cell["status"] == status).sum()) for status in STATUSES},
    }
    for metric in (*METRICS, *(name for name in EARLY if name in cell.columns)):
        interval = t_interval(ok[metric].drop_nulls().to_numpy())
        row |= {metric: interval.estimate, f"{metric}_lower": interval.lower, f"{metric}_upper": interval.upper}
        row[f"{metric}_all_runs"] = _mean(cell[metric])
    return row


def _mean(values: pl.Series) -> float | None:
    found = values.drop_nulls().to_numpy()
    return float(found.mean()) if len(found) else None


def texts(column: pl.Series) -> list[str]:
    """Distinct texts of a column, sorted, without gaps."""
    return sorted({text for text in column if text})


def verdict_row(verdict: Verdict) -> Row:
    """A verdict as one flat record."""
    claim = verdict.claim
    return {
        "name": claim.name,
        "sentence": claim.sentence,
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "confirmatory": claim.confirmatory,
        "estimand": claim.estimand.kind,
        "metric": verdict.shown.metric,
        "other": getattr(verdict.shown, "other", None),
        "scale": getattr(verdict.shown, "scale", "linear"),
        "test": claim.test,
        "direction": claim.direction,
        "null": claim.null,
        "margin": claim.margin,
        "n": verdict.n,
        **_interval("", verdict.interval),
        **_interval("bca_", verdict.bca),
        **_interval("all_runs_", verdict.all_runs),
        "method": verdict.interval.method,
        "bca_method": verdict.bca.method,
        "p": verdict.p,
        "p_against": verdict.p_against,
        "p_holm": verdict.p_holm,
        "p_against_holm": verdict.p_against_holm,
        "sign_flip_p": verdict.sign_flip_p,
        "welch_p": verdict.welch_p,
        "effect_size": verdict.effect_size,
        "test_set_standard_error": verdict.sampling_error,
        "paper_value": claim.paper_value,
        "paper_note": claim.paper_note,
        "agrees_with_paper": verdict.agrees_with_paper,
        "caveats": list(verdict.caveats),
    }


def _interval(prefix: str, interval: Interval) -> Row:
    return {
        f"{prefix}estimate": interval.estimate,
        f"{prefix}lower": interval.lower,
        f"{prefix}upper": interval.upper,
    }


def correlated(design: Design, frame: pl.DataFrame) -> list[Correlation]:
    """Every measure of sharpness against the gap, in the arms that claims are about."""
    measures = [name for each in design.probings for name in each.probe.ranked]
    return correlations(frame, claimed_arms(design), list(dict.fromkeys(measures)))


def claimed_arms(design: Design) -> tuple[str, ...]:
    """Arms that claims are about, each once: those whose correlation is claimed first, then in the order of claims."""
    first: list[str] = []
    others: list[str] = []
    for claim in design.claims:
        points, arms = claim.estimand.points, claim.estimand.arms
        (first if isinstance(claim.estimand, Concordance) else others).extend([*arms, *(point.arm for point in points)])
    return tuple(dict.fromkeys(first + others))
