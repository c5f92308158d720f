"""A finished run: its numbers, and its state at any step, replayed where it was not stored."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import polars as pl
from filelock import FileLock, Timeout
from torch import Tensor, nn

from overparam.foundations.environment import differences
from overparam.foundations.json_values import number
from overparam.foundations.words import nearest
from overparam.identity import RunId, digest_arrays, run_id
from overparam.runs.attempt import Interrupted
from overparam.runs.determinism import settled
from overparam.runs.execution import Execution
from overparam.runs.observations import Observations
from overparam.runs.result import Result, Status
from overparam.runs.setting import Setting
from overparam.runs.store import Store, StoreError
from overparam.runs.training.observer import Observer
from overparam.runs.training.state import State, state_from_arrays
from overparam.runs.verified import refuse_mixed, stored
from overparam.specs.run import RunSpec


def _final(name: str) -> property:
    """Final eval-mode value of a run: a mean loss, or an accuracy in [0, 1]; NaN where there is no such split."""

    def value(run: "Run") -> float:
        return number(run.result["final"][name])

    return property(value, doc=f"Final {name.replace('_', ' ')}, in eval mode.")


@dataclass(frozen=True)
class Run:
    """A trained network: spec, curves, final risks, states at stored steps, status."""

    run_id: RunId
    spec: RunSpec
    result: Result = field(repr=False)
    execution: Execution = field(repr=False)

    @property
    def status(self) -> Status:
        return self.result["status"]

    @property
    def last_step(self) -> int:
        return int(self.result["steps"])

    @cached_property
    def curves(self) -> pl.DataFrame:
        """One row per evaluation: step, epoch, lr, and loss and accuracy on train, val and test."""
        return pl.DataFrame(self.result["curves"])

    def observations(self, name: str) -> pl.DataFrame:
        """What the observer of that name saw: one row per step, with step, epoch and lr."""
        held = self.result.get("observed", {})
        if name not in held:
            raise KeyError(f'run {self.run_id} holds no observations "{name}"; it holds: {", ".join(held) or "none"}')
        return pl.DataFrame(held[name])

    train_loss = _final("train_loss")
    train_accuracy = _final("train_accuracy")
    val_loss = _final("val_loss")
    val_accuracy = _final("val_accuracy")
    test_loss = _final("test_loss")
    test_accuracy = _final("test_accuracy")

    def state(self, step: int | Literal["init", "final"]) -> State:
        """Whole state at a step. A step that was not stored is replayed, and the replay must end in the same bits."""
        named = {"init": self.spec.first_step, "final": self.last_step}
        chosen = named.get(step) if isinstance(step, str) else step
        if not isinstance(chosen, int):
            raise ValueError(f'step {step!r} is not a step; allowed: "init", "final" or a whole number')
        if str(chosen) in self.result["states"]:
            return state_from_arrays(chosen, Store(self.execution.store).state(self.run_id, chosen))
        return load_state(self.spec, chosen, self.execution)

    def weights(self, step: int | Literal["init", "final"] = "final") -> dict[str, Tensor]:
        """Named parameters at a step."""
        return self.state(step).weights

    def model(self, step: int | Literal["init", "final"] = "final") -> nn.Module:
        """The network at a step, in eval mode, on the device of the run. A copy: nothing done to it reaches the run.

        A masked run's pruned weights are in it as zeros; a run's own probes measure without them.
        """
        return Setting(self.spec, self.execution).model(self.state(step)).eval()

    def data(self, split: Literal["train", "val", "test"] = "train") -> tuple[Tensor, Tensor]:
        """Copies of inputs (N, …) and labels (N,) of a split, as the run saw them, wrong labels and all."""
        splits = Setting(self.spec, self.execution).splits
        if split not in splits:
            raise ValueError(f'split = "{split}"; allowed: {", ".join(splits)}{nearest(split, splits)}')
        x, y = splits[split]
        return x.clone(), y.clone()


def read(spec: RunSpec, execution: Execution) -> Run:
    """Finished run from the store.

    Raises:
        StoreError: it is missing or damaged, or was trained on other data than `spec` decodes to now.
    """
    return Run(run_id(spec), spec, stored(spec, execution), execution)


def load_state(spec: RunSpec, step: int, execution: Execution) -> State:
    """State of a finished run at a step, replayed if it was not stored."""
    run = read(spec, execution)
    if str(step) not in run.result["states"]:
        with held(Store(execution.store).lock(run.run_id), run.run_id, lambda: False):
            replay(run, Setting(spec, execution), frozenset({step}))
    return state_from_arrays(step, Store(execution.store).state(run.run_id, step))


def replay(run: Run, setting: Setting, steps: frozenset[int], observers: Sequence[Observer] = ()) -> None:
    """Train again from the nearest stored state; add the states at `steps` and what the observers see to the store.

    The caller holds the run's lock.

    Raises:
        StoreError: a step lies outside the run, or the replay does not end in the stored final bits.
    """
    last = run.last_step
    if outside := sorted(steps - steps_inside(run, steps)):
        raise StoreError(
            f"run {run.run_id} has the steps {run.spec.first_step} … {last}; step {outside[0]} does not exist"
        )
    refuse_mixed(run.execution, run.result["environment"], f"run {run.run_id} was computed")
    store, observations = Store(run.execution.store), Observations(observers, setting.timetable)
    stops = steps | steps_inside(run, observations.steps) | {last}
    begin = max(int(step) for step in run.result["states"] if int(step) <= min(stops))
    start = state_from_arrays(begin, store.state(run.run_id, begin))
    states: dict[int, State] = {}
    with settled(run.execution):
        for moment in setting.moments(start, stops):
            observations.look(moment)
            if moment.step in steps or moment.step == last:
                states[moment.step] = moment.state()
            if moment.step == last:
                break
    if last not in states or digest_arrays(states[last].arrays()) != run.result["states"][str(last)]:
        ours, theirs = run.execution.environment, run.result["environment"]
        change = "; ".join([*run.result.get("mixed", ()), differences(ours, theirs)]) or "the cause is unknown"
        raise StoreError(f"replaying run {run.run_id} does not end in the stored weights ({change})")
    added = {step: states[step].arrays() for step in steps}
    store.extend(run.run_id, added, observations.columns(), observations.codes(), observations.correct)


@contextmanager
def held(lock: FileLock, identity: RunId, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Hold a lock; while another process holds it, wait, but stay interruptible."""
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout:
            if should_stop():
                raise Interrupted(f"run {identity} is being computed by another process") from None
    try:
        yield
    finally:
        lock.release()


def steps_inside(run: Run, steps: Iterable[int]) -> frozenset[int]:
    """Those of the steps that the run has."""
    return frozenset(step for step in steps if run.spec.first_step <= step <= run.last_step)
