"""RunSpec → Run: from the store if it is there, else trained now; what a finished run lacks is replayed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from overparam.identity import run_id
from overparam.runs.attempt import Attempt
from overparam.runs.checks import refuse_unfit, refuse_unsupported
from overparam.runs.determinism import settled
from overparam.runs.execution import Execution
from overparam.runs.run import Run, held, read, replay, steps_inside
from overparam.runs.setting import Setting
from overparam.runs.start import first_state
from overparam.runs.store import Store
from overparam.runs.training.observer import Observer
from overparam.runs.training.timetable import Timetable
from overparam.runs.verified import refuse_diverged, refuse_other_code
from overparam.specs.run import RunSpec


def train(
    spec: RunSpec,
    *,
    store: str | Path = "runs",
    workers: int = 1,
    observers: Sequence[Observer] = (),
    **settings: Any,
) -> Run:
    """Train the network that `spec` describes, or read it from the store if it is there; its parents come first.

    `workers` is the number of torch threads of this one run (`threads` of `Execution`); `settings` are the others of
    `Execution` (device, data_dir, …). What the `observers` lack of a finished run is added by a replay.

    >>> import tempfile
    >>> from overparam.specs import MLP, SGD, DataSpec, TrainSpec
    >>> recipe = TrainSpec(optimizer=SGD(lr=0.1), batch_size=10, epochs=2)
    >>> spec = RunSpec(data=DataSpec(name="digits", num_train=100), model=MLP(width=8), train=recipe)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = train(spec, store=folder)
    >>> run.status, run.curves["step"].to_list()
    ('ok', [10, 20])

    Raises:
        ValueError: a setting is out of range, the spec cannot be trained, or its data is missing or damaged.
        StoreError: what is stored is damaged, or was computed from other data, in another numeric environment, or by
            an observer of the same name with other code.
    """
    if "threads" in settings:
        given = settings["threads"]
        raise ValueError(f"threads = {given}: train calls the threads of its one run workers; pass workers={given}")
    return execute(Setting(spec, Execution(store=Path(store), threads=workers, **settings)), observers=observers)


def execute(
    setting: Setting,
    save_steps: frozenset[int] = frozenset(),
    should_stop: Callable[[], bool] = lambda: False,
    observers: Sequence[Observer] = (),
) -> Run:
    """The finished run of a setting, from the store if possible; parents are executed first.

    States and observations that a finished run lacks are added by a replay.

    Raises:
        Interrupted: `should_stop` turned true; the progress was checkpointed first.
        StoreError: what is stored does not belong to the setting, or to the code of the observers.
    """
    spec, execution = setting.spec, setting.execution
    refuse_unsupported(spec)
    names = [observer.name for observer in observers]
    if len(set(names)) < len(names):
        raise ValueError(f"two observers have one name ({', '.join(names)}); a name stands for one measure")
    store, identity = Store(execution.store), run_id(spec)
    if store.has(identity) and not any(lacking(run := read(spec, execution), save_steps, observers)):
        return run  # without the lock, which a store that can only be read cannot give
    with held(store.lock(identity), identity, should_stop):
        if not store.has(identity):
            _complete(setting, save_steps, should_stop, observers)
        run = read(spec, execution)
        missing, unseen = lacking(run, save_steps, observers)
        if not missing and not unseen:
            return run
        replay(run, setting, missing, unseen)
        return read(spec, execution)


def _complete(
    setting: Setting, save_steps: frozenset[int], should_stop: Callable[[], bool], observers: Sequence[Observer]
) -> None:
    """Train a run that is not in the store, after the runs behind it."""
    spec, execution = setting.spec, setting.execution
    refuse_unfit(spec, setting.examples.sizes, execution.data_dir)
    for parent in spec.parents():
        wanted = frozenset(step for of, step in spec.states_wanted() if of == parent)
        execute(Setting(parent, execution), wanted, should_stop)
    refuse_diverged(spec, execution)
    with settled(execution):
        start, mixed = first_state(setting)
        Attempt(setting, save_steps, observers, mixed).complete(start, should_stop)


def lacking(
    run: Run, save_steps: frozenset[int], observers: Sequence[Observer]
) -> tuple[frozenset[int], list[Observer]]:
    """Steps whose states a finished run does not hold, and observers whose numbers it does not hold.

    Raises:
        StoreError: it holds numbers of an observer of the same name with other code.
    """
    by = run.result.get("observed_by", {})
    refuse_other_code(run.run_id, by, {each.name: each.digest for each in observers if each.name in by})
    # It may have ended before, or its data be less than the name promised when its steps were planned.
    missing = steps_inside(run, save_steps) - {int(step) for step in run.result["states"]}
    return missing, [observer for observer in observers if not _has_seen(run, observer)]


def _has_seen(run: Run, observer: Observer) -> bool:
    """Whether a run holds an observer's numbers at the steps that it asks for now."""
    rows = run.result.get("observed", {}).get(observer.name)
    asked = steps_inside(run, observer.steps(Timetable(run.spec.train, run.result["num_train"])))
    return rows is not None and set(rows.get("step", ())) == asked
