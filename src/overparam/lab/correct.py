"""The test examples that an experiment's runs classify correctly: columns beside its table, for whoever judges it.

A table that people read or that is written as text has no use for bits, so they are not in it. Torch-free.
"""

from collections.abc import Mapping

import numpy as np
import polars as pl

from overparam.identity import RunId, run_id
from overparam.lab.experiment import Experiment
from overparam.runs.execution import Execution
from overparam.runs.result import END
from overparam.runs.store import Store
from overparam.studies.study import Cell

ALWAYS = ("test_correct", "early_stop_correct")  # `X_correct` has the examples behind `X_accuracy`


def correct_of(item: Experiment, execution: Execution) -> pl.DataFrame:
    """Packed bits, one row per cell and seed as in the table; null where the run keeps none.

    The columns `ALWAYS` and those of the design's probes.

    Raises:
        StoreError: what a run keeps is damaged.
    """
    store = Store(execution.store)
    identities = dict.fromkeys(run_id(cell.spec) for cell in item.cells)
    kept = {identity: store.test_correct(identity) or {} for identity in identities if store.has(identity)}
    columns = dict.fromkeys([*ALWAYS, *(name for each in item.design.probings for name in each.probe.correct)])
    rows = [_row(item, cell, kept) for cell in item.cells]
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.Binary))


def _row(item: Experiment, cell: Cell, kept: Mapping[RunId, Mapping[str, np.ndarray]]) -> dict[str, bytes | None]:
    """What the run of a cell keeps, under the columns that are known of every run and those of the cell's probes."""
    names = {"test_correct": END}
    for probe in item.design.probes_of(cell):
        names |= probe.correct
    found = kept.get(run_id(cell.spec), {})
    return {column: found[name].tobytes() if name in found else None for column, name in names.items()}
