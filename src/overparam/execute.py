"""RunSpec → Run: from the store if it is there, else trained now; what a finished run lacks is replayed."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import polars as pl
from filelock import FileLock, Timeout
from torch import Tensor

from overparam.data.load import prepare
from overparam.execution import Execution
from overparam.identity import RunId, run_id
from overparam.numerics import settled
from overparam.session import Interrupted, Session, number
from overparam.specs.run import Rewind, RunSpec
from overparam.store.digests import digest_arrays
from overparam.store.provenance import differences
from overparam.store.store import Store, StoreError
from overparam.stored import UnsupportedSpec, refuse_mixed, refuse_unsupported, stored
from overparam.training.observer import Observer
from overparam.training.state import State, state_from_arrays
from overparam.training.status import Status
from overparam.training.timetable import Timetable


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
        named = {"init": self.spec.first_step, "final": int(self.result["steps"])}
        chosen = named.get(step) if isinstance(step, str) else step
        if not isinstance(chosen, int):
            raise ValueError(f'step {step!r} is not a step; allowed: "init", "final" or a whole number')
        return load_state(self.spec, chosen, self.execution)

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
    names = [observer.name for observer in observers]
    if len(set(names)) < len(names):
        raise ValueError(f"two observers have one name ({', '.join(names)}); a name stands for one measure")
    store, identity = Store(execution.store), run_id(spec)
    with held(store.lock(identity), identity, should_stop):
        if not store.has(identity):
            if isinstance(spec.init, Rewind):
                _refuse_nothing_to_train(spec, execution)
                execute(spec.init.of, execution, frozenset({spec.init.step}), should_stop)
            start, mixed = parent_state(spec, execution)
            with settled(execution):
                Session(spec, execution, save_steps, observers).complete(start, mixed, should_stop)
        run = read(spec, execution)
        missing = save_steps - {int(step) for step in run.result["states"]}
        unseen = [observer for observer in observers if not _has_seen(run, observer)]
        if not missing and not unseen:
            return run
        replay(run, missing, unseen)
        return read(spec, execution)


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


def _has_seen(run: Run, observer: Observer) -> bool:
    """Whether a run holds an observer's numbers at the steps that it asks for now."""
    rows = run.result.get("observed", {}).get(observer.name)
    asked = _inside(run, observer.steps(Timetable(run.spec.train, run.result["num_train"])))
    return rows is not None and set(rows.get("step", ())) == asked


def _inside(run: Run, steps: Iterable[int]) -> frozenset[int]:
    first, last = run.spec.first_step, int(run.result["steps"])
    return frozenset(step for step in steps if first <= step <= last)


def _refuse_nothing_to_train(spec: RunSpec, execution: Execution) -> None:
    end = Timetable(spec.train, len(prepare(spec.data, data_dir=execution.data_dir).train.y)).total_steps
    if spec.first_step >= end:
        raise UnsupportedSpec(f"init.step = {spec.first_step} leaves nothing to train; the run ends at step {end}")


def read(spec: RunSpec, execution: Execution) -> Run:
    """Finished run from the store.

    Raises:
        StoreError: it is missing or damaged, or was trained on other data than `spec` decodes to now.
    """
    return Run(run_id(spec), spec, stored(spec, execution), execution)


def parent_state(spec: RunSpec, execution: Execution) -> tuple[State | None, list[str]]:
    """Where a rewound run starts, and which other numeric environments that state comes from."""
    if not isinstance(spec.init, Rewind):
        return None, []
    parent = read(spec.init.of, execution).result
    what = f"the run that {run_id(spec)} rewinds to was computed"
    mixed = refuse_mixed(execution, parent["environment"], what)
    return load_state(spec.init.of, spec.init.step, execution), [*parent.get("mixed", ()), *mixed]


def load_state(spec: RunSpec, step: int, execution: Execution) -> State:
    """State of a finished run at a step, replayed if it was not stored."""
    run = read(spec, execution)
    if str(step) not in run.result["states"]:
        with held(Store(execution.store).lock(run.run_id), run.run_id, lambda: False):
            replay(run, frozenset({step}))
    return state_from_arrays(step, Store(execution.store).state(run.run_id, step))


def replay(run: Run, steps: frozenset[int], observers: Sequence[Observer] = ()) -> None:
    """Train again from the nearest stored state; add the states at `steps` and what the observers see to the store.

    The caller holds the run's lock.

    Raises:
        StoreError: a step lies outside the run, or the replay does not end in the stored final bits.
    """
    first, last = run.spec.first_step, int(run.result["steps"])
    if outside := sorted(steps - _inside(run, steps)):
        raise StoreError(f"run {run.run_id} has the steps {first} … {last}; step {outside[0]} does not exist")
    refuse_mixed(run.execution, run.result["environment"], f"run {run.run_id} was computed")
    store = Store(run.execution.store)
    session = Session(run.spec, run.execution, steps, observers)
    stops = steps | _inside(run, session.observed_steps) | {last}
    nearest = max(int(step) for step in run.result["states"] if int(step) <= min(stops))
    start = state_from_arrays(nearest, store.state(run.run_id, nearest))
    states: dict[int, State] = {}
    with settled(run.execution):
        for moment in session.moments(start, stops, targets=()):
            session.observe(moment)
            if moment.step in steps or moment.step == last:
                states[moment.step] = moment.state()
            if moment.step == last:
                break
    if last not in states or digest_arrays(states[last].arrays()) != run.result["states"][str(last)]:
        ours, theirs = run.execution.environment, run.result["environment"]
        change = "; ".join([*run.result.get("mixed", ()), differences(ours, theirs)]) or "the cause is unknown"
        raise StoreError(f"replaying run {run.run_id} does not end in the stored weights ({change})")
    added = {step: states[step].arrays() for step in steps}
    store.extend(run.run_id, added, session.observations())
