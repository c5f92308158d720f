"""RunSpec → Run: from the store if it is there, else trained now; what a finished run lacks is replayed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import polars as pl
import torch
from torch import Tensor

from overparam.data.load import content_digest
from overparam.execution import Execution
from overparam.identity import RunId, run_id
from overparam.session import Session, number, refuse_mixed
from overparam.specs.run import Dense, Rewind, RunSpec
from overparam.store.digests import digest_arrays
from overparam.store.provenance import differences
from overparam.store.store import Store, StoreError
from overparam.training.observer import Observer
from overparam.training.state import State, state_from_arrays
from overparam.training.status import Status

Row = dict[str, float | None]


class UnsupportedSpec(ValueError):
    """The spec is valid but this version cannot train it."""


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
    result: Mapping[str, Any] = field(repr=False)
    execution: Execution = field(repr=False)

    @property
    def status(self) -> Status:
        status: Status = self.result["status"]
        return status

    @cached_property
    def curves(self) -> pl.DataFrame:
        """One row per evaluation: step, epoch, lr, and loss and accuracy on train, val and test."""
        return pl.DataFrame(self.result["curves"])

    def observations(self, name: str) -> pl.DataFrame:
        """What the observer of that name saw: one row per step, with step, epoch and lr."""
        seen = self.result.get("observed", {})
        if name not in seen:
            raise KeyError(f'run {self.run_id} holds no observations "{name}"; it holds: {", ".join(seen) or "none"}')
        return pl.DataFrame(seen[name])

    train_loss = _final("train_loss")
    train_accuracy = _final("train_accuracy")
    val_loss = _final("val_loss")
    val_accuracy = _final("val_accuracy")
    test_loss = _final("test_loss")
    test_accuracy = _final("test_accuracy")

    def state(self, step: int | Literal["init", "final"]) -> State:
        """Whole state at a step. A step that was not stored is replayed, and the replay must end in the same bits."""
        number = {"init": self.spec.first_step, "final": int(self.result["steps"])}.get(str(step), step)
        assert isinstance(number, int)
        return load_state(self.spec, number, self.execution)

    def weights(self, step: int | Literal["init", "final"] = "final") -> dict[str, Tensor]:
        """Named parameters at a step."""
        return self.state(step).weights


def train(
    spec: RunSpec,
    *,
    store: str | Path = "runs",
    workers: int = 1,
    observers: Sequence[Observer] = (),
    **settings: Any,
) -> Run:
    """Train the network that `spec` describes, or read it from the store if it is there.

    `workers` is the number of torch threads of this one run; `settings` are those of `Execution`.
    """
    return execute(spec, Execution(store=Path(store), threads=workers, **settings), observers=observers)


def execute(
    spec: RunSpec,
    execution: Execution,
    save_steps: frozenset[int] = frozenset(),
    should_stop: Callable[[], bool] = lambda: False,
    observers: Sequence[Observer] = (),
) -> Run:
    """Finished run of `spec`, from the store if possible; parents are executed first.

    States and observations that a finished run lacks are added by a replay.

    Raises:
        Interrupted: `should_stop` turned true; the progress was checkpointed first.
    """
    refuse_unsupported(spec)
    store, identity = Store(execution.store), run_id(spec)
    with store.lock(identity):
        if not store.has(identity):
            if isinstance(spec.init, Rewind):
                execute(spec.init.of, execution, frozenset({spec.init.step}), should_stop)
            torch.set_num_threads(execution.threads)
            Session(spec, execution, save_steps, observers).complete(parent_state(spec, execution), should_stop)
        run = read(spec, execution)
        missing = save_steps - {int(step) for step in run.result["states"]}
        unseen = [observer for observer in observers if observer.name not in run.result.get("observed", {})]
        if not missing and not unseen:
            return run
        replay(run, missing, unseen)
        return read(spec, execution)


def refuse_unsupported(spec: RunSpec) -> None:
    """Say what this version cannot train, before anything is computed."""
    if not isinstance(spec.mask, Dense):
        raise UnsupportedSpec(f'mask kind "{spec.mask.kind}" is not trained by this version; use Dense()')
    if spec.train.linearize:
        raise UnsupportedSpec("train.linearize=true is not trained by this version; use linearize=False")
    for parent in spec.parents():
        refuse_unsupported(parent)


def read(spec: RunSpec, execution: Execution) -> Run:
    """Finished run from the store.

    Raises:
        StoreError: it is missing or damaged, or was trained on other data than `spec` decodes to now.
    """
    identity = run_id(spec)
    result = Store(execution.store).result(identity)
    now = content_digest(spec.data, data_dir=execution.data_dir)
    if result["data_digest"] != now:
        raise StoreError(
            f"run {identity} was trained on {spec.data.name} data with digest {result['data_digest'][:12]}…, but the "
            f"data found now has {now[:12]}…; point --data-dir at the old data or use another --store"
        )
    return Run(identity, spec, result, execution)


def parent_state(spec: RunSpec, execution: Execution) -> State | None:
    """Where a rewound run starts: the state of its parent, which must come from the same numeric environment."""
    if not isinstance(spec.init, Rewind):
        return None
    theirs = read(spec.init.of, execution).result["environment"]
    refuse_mixed(execution, theirs, f"the run that {run_id(spec)} rewinds to was computed")
    return load_state(spec.init.of, spec.init.step, execution)


def load_state(spec: RunSpec, step: int, execution: Execution) -> State:
    """State of a finished run at a step, replayed if it was not stored."""
    run = read(spec, execution)
    if str(step) not in run.result["states"]:
        replay(run, frozenset({step}))
    return state_from_arrays(step, Store(execution.store).state(run.run_id, step))


def replay(run: Run, steps: frozenset[int], observers: Sequence[Observer] = ()) -> None:
    """Train again from the nearest stored state; add the states at `steps` and what the observers see to the store.

    Raises:
        StoreError: a step lies outside the run, or the replay does not end in the stored final bits.
    """
    first, last = run.spec.first_step, int(run.result["steps"])
    if outside := [step for step in steps if not first <= step <= last]:
        raise StoreError(f"run {run.run_id} has the steps {first} … {last}; step {outside[0]} does not exist")
    store = Store(run.execution.store)
    session = Session(run.spec, run.execution, steps, observers)
    looked_at = frozenset(step for step in session.observed_steps if first <= step <= last)
    nearest = max(int(step) for step in run.result["states"] if int(step) <= min(steps | looked_at | {last}))
    states: dict[int, State] = {}
    start = state_from_arrays(nearest, store.state(run.run_id, nearest))
    for moment in session.moments(start, steps | looked_at | {last}):
        session.observe(moment)
        if moment.step in steps or moment.step == last:
            states[moment.step] = moment.state()
        if moment.step == last:
            break
    if digest_arrays(states[last].arrays()) != run.result["states"][str(last)]:
        change = differences(run.execution.environment, run.result["environment"]) or "the cause is unknown"
        raise StoreError(f"replaying run {run.run_id} does not end in the stored weights ({change})")
    added = {step: states[step].arrays() for step in steps}
    store.extend(run.run_id, added, session.observations())
