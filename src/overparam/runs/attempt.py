"""One attempt at a run: train from its last checkpoint, else from its start, to the end, and store what came of it."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overparam.foundations.json_values import finite, number
from overparam.identity import run_id
from overparam.models.risk import Risk, risk
from overparam.runs.observations import Observations, Row, columns, place, seen
from overparam.runs.result import EARLY_STOPPED, END, Result
from overparam.runs.setting import Setting
from overparam.runs.store import Store
from overparam.runs.training.loop import Moment
from overparam.runs.training.observer import Observer
from overparam.runs.training.state import State, state_from_arrays
from overparam.runs.training.status import status_of
from overparam.runs.verified import refuse_mixed, refuse_other_code, refuse_other_data


class Interrupted(Exception):
    """The run was asked to stop; its progress is in a checkpoint."""


@dataclass
class Attempt:
    """A run under way: where it happens, what it has seen and kept so far.

    `mixed` names the other numeric environments that what it goes on with comes from.
    """

    setting: Setting
    save_steps: frozenset[int]
    observers: Sequence[Observer] = ()
    mixed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.spec, self.execution = self.setting.spec, self.setting.execution
        self.store, self.run_id = Store(self.execution.store), run_id(self.spec)
        self.observations = Observations(self.observers, self.setting.timetable)
        self.rows: list[Row] = []
        self.reached: list[float] = []
        self.states: dict[int, State] = {}
        self.correct: dict[str, NDArray[np.uint8]] = {}
        self.last_loss: float | None = None
        self.seconds = 0.0

    def complete(self, start: State | None, should_stop: Callable[[], bool]) -> None:
        """Train from the last checkpoint, else from `start`, to the end, and store the run.

        Raises:
            Interrupted: `should_stop` turned true; the progress is in a checkpoint.
        """
        start = self.resume() or start
        timetable = self.setting.timetable
        evaluate_at = timetable.log_spaced(self.execution.evaluations)
        keep = self.save_steps | {self.spec.first_step}
        eighths = timetable.eighths()  # only there, so that a resumed run looks at its loss as an unbroken one
        stops = evaluate_at | keep | self.observations.steps | eighths
        targets = tuple(t for t in self.spec.train.loss_targets if t < min(self.reached, default=math.inf))
        began, saved = time.process_time(), time.monotonic()
        for moment in self.setting.moments(start, stops, targets, self.last_loss):
            self.note(moment, keep, evaluate_at)
            if moment.end:
                self.finish(moment, self.seconds + time.process_time() - began)
            elif moment.diverged_at is not None or moment.step not in eighths:
                continue  # a diverged run's end is near and already certain
            elif should_stop() or time.monotonic() - saved >= self.execution.checkpoint_seconds:
                saved = time.monotonic()
                self.checkpoint(moment, self.seconds + time.process_time() - began)
                if should_stop():
                    raise Interrupted(f"run {self.run_id} stopped at step {moment.step}; its checkpoint is kept")

    def note(self, moment: Moment, keep: frozenset[int], evaluate_at: frozenset[int]) -> None:
        """Keep of a moment what is wanted: its state, what observers see, an evaluation."""
        if moment.step in keep or moment.end:
            self.states[moment.step] = moment.state()
        self.reached += moment.reached
        self.observations.look(moment)
        if not seen(self.rows, moment) and (moment.step in evaluate_at or moment.reached or moment.end):
            self.rows.append(self.evaluate(moment))

    def evaluate(self, moment: Moment) -> Row:
        row = place(moment)
        for name, (x, y) in self.setting.splits.items():
            value = risk(moment.model, x, y, self.spec.train.loss) if len(y) else Risk(math.nan, math.nan, 0)
            row |= {f"{name}_loss": finite(value.loss), f"{name}_accuracy": finite(value.accuracy)}
            if name == "test":
                self.keep_correct(value, row["val_loss"])
        return row

    def keep_correct(self, tested: Risk, val_loss: float | None) -> None:
        """Keep which test examples are correct now, also as those at the first of the lowest validation losses so far.

        Both are of the very pass that gives the accuracy of the row.
        """
        if (bits := tested.bits) is None:
            return  # there are no test examples
        self.correct[END] = bits
        before = [row["val_loss"] for row in self.rows if row["val_loss"] is not None]
        if val_loss is not None and val_loss < min(before, default=math.inf):
            self.correct[EARLY_STOPPED] = bits

    @property
    def all_correct(self) -> dict[str, NDArray[np.uint8]]:
        """What is kept of correct test examples: at evaluations, and by the observers' names at their looks."""
        return {**self.observations.correct, **self.correct}

    def finish(self, moment: Moment, seconds: float) -> None:
        """Store the run: its numbers, the states that were kept, and which test examples are correct."""
        assert moment.end is not None
        states = {step: state.arrays() for step, state in self.states.items()}
        spec_json, result = self.spec.model_dump_json(), self.result(moment, seconds)
        self.store.write(self.run_id, spec_json, result, states, self.all_correct)

    def result(self, moment: Moment, seconds: float) -> Result:
        examples, train = self.setting.examples, self.spec.train
        final = {k: v for k, v in self.rows[-1].items() if k.rpartition("_")[2] in ("loss", "accuracy")}
        num_train = len(examples.train.y)
        train_risk = Risk(number(final["train_loss"]), number(final["train_accuracy"]), num_train)
        assert moment.end is not None
        return {
            "status": status_of(moment.end, train_risk, examples.num_classes, train.loss, bool(train.loss_targets)),
            "end": moment.end,
            "steps": moment.step,
            "epochs": moment.step / self.setting.timetable.steps_per_epoch,
            "final": final,
            "curves": columns(self.rows),
            "targets_reached": self.reached,
            "diverged_at": moment.diverged_at,
            "last_finite_loss": moment.last_loss,
            "num_train": num_train,
            "num_test": len(examples.test.y),
            "data_digest": examples.digest,
            "test_digest": examples.test_digest,
            "noise_digest": examples.noise_digest,
            "environment": self.execution.environment,
            "mixed": self.mixed,
            "observed": self.observations.columns(),
            "observed_by": self.observations.codes(),
            "seconds": seconds,
        }

    def checkpoint(self, moment: Moment, seconds: float) -> None:
        """Keep all that is needed to go on, including the states, rows and correct examples gathered so far."""
        arrays = {f"now/{name}": value for name, value in moment.state().arrays().items()}
        for step, state in self.states.items():
            arrays |= {f"{step}/{name}": value for name, value in state.arrays().items()}
        arrays |= {f"correct/{name}": bits for name, bits in self.all_correct.items()}
        meta = {
            "step": moment.step,
            "rows": self.rows,
            "observed": self.observations.rows,
            "observed_by": self.observations.codes(),
            "reached": self.reached,
            "last_loss": moment.last_loss,
            "seconds": seconds,
            "mixed": self.mixed,
            "environment": self.execution.environment,
            "data_digest": self.setting.examples.digest,
        }
        self.store.save_checkpoint(self.run_id, arrays, meta)

    def resume(self) -> State | None:
        """State of the last checkpoint, with rows, kept states and correct examples put back.

        Raises:
            StoreError: it was made with other data, by observers of these names with other code, or in another numeric
                environment without leave to mix.
        """
        found = self.store.checkpoint(self.run_id)
        if found is None:
            return None
        arrays, meta = found
        refuse_other_data(self.spec, self.run_id, "was begun", meta["data_digest"], self.setting.examples.digest)
        self.mixed += refuse_mixed(self.execution, meta["environment"], f"run {self.run_id} was interrupted")
        self.mixed += [text for text in meta["mixed"] if text not in self.mixed]
        refuse_other_code(self.run_id, meta.get("observed_by", {}), self.observations.codes())
        self.rows, self.reached = meta["rows"], meta["reached"]
        self.last_loss, self.seconds = meta["last_loss"], meta["seconds"]
        by_step: dict[str, dict[str, Any]] = {}
        for name, value in arrays.items():
            prefix, _, rest = name.partition("/")
            by_step.setdefault(prefix, {})[rest] = value
        now, correct = by_step.pop("now"), by_step.pop("correct", {})
        self.correct = {name: bits for name, bits in correct.items() if name in (END, EARLY_STOPPED)}
        self.observations.resume(meta["observed"], correct)
        self.states = {int(step): state_from_arrays(int(step), group) for step, group in by_step.items()}
        return state_from_arrays(meta["step"], now)
