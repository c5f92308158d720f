"""The table of an experiment: one row per cell and seed, from what the store holds. Torch-free."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from overparam.claims.estimand import level_text
from overparam.foundations.environment import numeric
from overparam.identity import RunId, run_id
from overparam.lab.experiment import Experiment
from overparam.probes.measurement import Measurement, measurement_of
from overparam.probes.probe import probe_id
from overparam.probes.reading import Reading
from overparam.runs.execution import Execution
from overparam.runs.store import Store
from overparam.runs.verified import stored
from overparam.specs import RunSpec
from overparam.studies.study import Cell

Taken = Mapping[tuple[RunId, str], Measurement]  # by the ids of run and probe


def taken_of(item: Experiment, execution: Execution) -> Taken:
    """What the store holds of the probes of an experiment's cells, each file read once."""
    store = Store(execution.store)
    places = {(run_id(cell.spec), probe): None for cell in item.cells for probe in item.design.probes_of(cell)}
    found = {(identity, probe_id(probe)): measurement_of(store, identity, probe) for identity, probe in places}
    return {place: each for place, each in found.items() if each is not None}


def frame_of(item: Experiment, execution: Execution, taken: Taken) -> pl.DataFrame:
    """One row per cell and seed; a run that is not in the store has status "missing"."""
    records = {identity: _record(spec, identity, execution) for identity, spec in _distinct(item.specs)}
    metrics = _metrics(item)
    rows = [
        {
            "arm": cell.arm,
            "level": level_text(cell.level),
            "level_value": None if isinstance(cell.level, str) else float(cell.level),
            "seed": cell.seed,
            "lr": cell.spec.train.optimizer.lr,
            **records[run_id(cell.spec)],
            **_measured(item, cell, taken),
        }
        for cell in item.cells
    ]
    return pl.DataFrame(rows, schema={**FRAME_SCHEMA, **dict.fromkeys(metrics, pl.Float64)})


def _metrics(item: Experiment) -> list[str]:
    """Columns that the design's probes add, each once."""
    return list(dict.fromkeys(name for each in item.design.probings for name in each.probe.columns))


def _measured(item: Experiment, cell: Cell, taken: Taken) -> dict[str, float | None]:
    """What the probes of a cell found at the end of its run; null where it is not measured."""
    found: dict[str, float | None] = {}
    seconds, identity = 0.0, run_id(cell.spec)
    for probe in item.design.probes_of(cell):
        if (measured := taken.get((identity, probe_id(probe)))) is not None:
            last = measured.looks[-1:]  # none of a run that diverged
            found |= last[0].numbers(probe.columns) if last else dict.fromkeys(probe.columns)
            seconds += measured.seconds
    return {**found, "probe_seconds": seconds}


def readings_of(item: Experiment, taken: Taken) -> tuple[Reading, ...]:
    """All measurements of an experiment's cells that have a look."""
    return tuple(
        Reading(cell.arm, level_text(cell.level), cell.seed, cell.spec, probe, found.looks)
        for cell in item.cells
        for probe in item.design.probes_of(cell)
        if (found := taken.get((run_id(cell.spec), probe_id(probe)))) is not None and found.looks
    )


def _distinct(specs: Iterable[RunSpec]) -> Iterable[tuple[RunId, RunSpec]]:
    return {run_id(spec): spec for spec in specs}.items()


def _record(spec: RunSpec, identity: RunId, execution: Execution) -> dict[str, Any]:
    store = Store(execution.store)
    if not store.has(identity):
        return {"run_id": identity, "status": "missing"}
    result = stored(spec, execution)
    final = result["final"]
    train, test = final["train_accuracy"], final["test_accuracy"]
    gap = None if train is None or test is None else train - test
    numbers = {name: result[name] for name in ("status", "steps", "epochs", "seconds", "num_train", "num_test")}
    risks = {name: final[name] for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")}
    digests = {"data_digest": result["data_digest"], "test_digest": result.get("test_digest")}
    origin = {**digests, "environment": numeric(result["environment"])}
    return {"run_id": identity, **numbers, **risks, "gap": gap, **origin, "mixed": "; ".join(result.get("mixed", ()))}


FRAME_SCHEMA: dict[str, Any] = {
    "arm": pl.String,
    "level": pl.String,
    "level_value": pl.Float64,
    "seed": pl.Int64,
    "lr": pl.Float64,
    "run_id": pl.String,
    "status": pl.String,
    "train_loss": pl.Float64,
    "train_accuracy": pl.Float64,
    "test_loss": pl.Float64,
    "test_accuracy": pl.Float64,
    "gap": pl.Float64,
    "steps": pl.Int64,
    "epochs": pl.Float64,
    "seconds": pl.Float64,
    "probe_seconds": pl.Float64,
    "num_train": pl.Int64,
    "num_test": pl.Int64,
    "data_digest": pl.String,
    "test_digest": pl.String,
    "environment": pl.String,
    "mixed": pl.String,
}
