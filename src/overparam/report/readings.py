"""Measurements beside the figures: all readings as JSON, and how measures of sharpness go together with the gap."""

import json
from collections.abc import Iterable

import polars as pl

from overparam.claims.correlations import Correlation, correlations
from overparam.claims.estimand import Concordance
from overparam.foundations.json_values import finite
from overparam.probes.reading import Reading
from overparam.studies.study import Design


def readings_json(readings: Iterable[Reading]) -> str:
    """A list of all readings, one on each line: what figures of measurements are drawn from."""
    records = [
        {
            "arm": each.arm,
            "level": each.level,
            "seed": each.seed,
            "probe": each.probe.model_dump(mode="json"),
            "rows": each.rows,
        }
        for each in readings
    ]
    lines = [json.dumps(finite(record), sort_keys=True, ensure_ascii=False, allow_nan=False) for record in records]
    return "[\n" + ",\n".join(lines) + "\n]\n"


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
