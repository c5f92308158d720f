"""Looks at validation and test loss while a run trains, and what stopping at the best of them gives."""

import math
from typing import Any

import torch

from overparam.data.load import prepare
from overparam.data.types import Split
from overparam.models.risk import risk
from overparam.probes.early_stop import EarlyStop
from overparam.probes.probe import probe_id
from overparam.runs.checks import UnsupportedSpec
from overparam.runs.execution import Execution
from overparam.runs.run import Run
from overparam.runs.training.loop import Moment
from overparam.runs.training.observer import Observer, Rows
from overparam.specs.run import RunSpec


def watcher(probe: EarlyStop, spec: RunSpec, execution: Execution) -> Observer:
    """The observer whose rows the probe is read from.

    Raises:
        UnsupportedSpec: the run has no validation examples.
    """
    examples = prepare(spec.data, data_dir=execution.data_dir)
    if not len(examples.val.y):
        raise UnsupportedSpec("data.num_val = 0, but early stopping needs validation examples; set data.num_val")
    best = [math.inf]

    def look(moment: Moment) -> dict[str, float]:
        loss = _risk(moment, examples.val, spec)[0]
        lowest, best[0] = loss < best[0], min(best[0], loss)  # in this order NaN is no minimum
        return {"val_loss": loss, "test_accuracy": _risk(moment, examples.test, spec)[1] if lowest else math.nan}

    def resume(rows: Rows) -> None:
        best[0] = min((row["val_loss"] for row in rows if row["val_loss"] is not None), default=math.inf)

    return Observer(
        _name(probe), lambda timetable: probe.watched(spec.first_step, timetable.total_steps), look, resume=resume
    )


def _name(probe: EarlyStop) -> str:
    return f"early stop {probe_id(probe)}"


def _risk(moment: Moment, split: Split, spec: RunSpec) -> tuple[float, float]:
    device = next(moment.model.parameters()).device
    found = risk(
        moment.model, torch.from_numpy(split.x).to(device), torch.from_numpy(split.y).to(device), spec.train.loss
    )
    return found.loss, found.accuracy


def early_stop_values(run: Run, probe: EarlyStop) -> dict[str, Any]:
    """Step, accuracy and loss at the lowest validation loss of a run that was watched; the first of equals."""
    seen = run.observations(_name(probe))
    if seen.is_empty():  # it ended before the first look
        return dict.fromkeys(probe.metrics, math.nan)
    steps, losses, tested = (seen[name].to_list() for name in ("step", "val_loss", "test_accuracy"))
    finite = [(loss, place) for place, loss in enumerate(losses) if loss is not None]
    if not finite:
        return dict.fromkeys(probe.metrics, math.nan)
    loss, place = min(finite)
    return {
        "early_stop_step": float(steps[place]),
        "early_stop_accuracy": tested[place],
        "early_stop_val_loss": loss,
        "early_stop_censored": float(place == len(steps) - 1),
        "steps": steps,
        "val_losses": losses,
    }
