"""Probe × run → measurement: where a finished run meets its probes. What is in the store is not measured again."""

import time
from collections.abc import Callable, Iterable

from overparam.foundations.json_values import finite
from overparam.identity import run_id
from overparam.probes.measurement import Look, Measurement
from overparam.probes.probe import Probe, probe_id
from overparam.probes.subject import Subject
from overparam.runs.attempt import Interrupted
from overparam.runs.determinism import settled
from overparam.runs.execute import execute, lacking
from overparam.runs.run import Run, held
from overparam.runs.setting import Setting
from overparam.runs.store import Store
from overparam.runs.training.observer import Observer
from overparam.runs.training.timetable import Timetable
from overparam.runs.verified import refuse_mixed


def execute_and_measure(
    setting: Setting, save_steps: frozenset[int], probes: Iterable[Probe], should_stop: Callable[[], bool]
) -> Run:
    """The finished run with every probe's measurement in the store.

    Raises:
        Interrupted: `should_stop` turned true; what was trained and measured until then is kept.
    """
    probes, store, identity = list(probes), Store(setting.execution.store), run_id(setting.spec)
    ahead = [each for each in probes if not store.has_measurement(identity, probe_id(each))]
    run, errors = execute(setting, save_steps, should_stop, _observers(ahead, setting)), []
    for probe in probes:
        if should_stop():
            raise Interrupted(f"run {identity} is trained, but not all its probes are taken")
        with held(store.lock(identity, probe_id(probe)), identity, should_stop):
            try:
                if not store.has_measurement(identity, probe_id(probe)):
                    run = measure(setting, run, probe, should_stop)
            except (ValueError, RuntimeError) as error:  # one probe that cannot be taken leaves the others
                errors.append(error)
    if len(errors) > 1:
        raise RuntimeError("; ".join(f"{type(error).__name__}: {error}" for error in errors))
    if errors:
        raise errors[0]
    return run


def _observers(probes: Iterable[Probe], setting: Setting) -> list[Observer]:
    """What the probes need to see while the run trains."""
    return [observer for probe in probes if (observer := probe.observer(setting)) is not None]


def measure(setting: Setting, run: Run, probe: Probe, should_stop: Callable[[], bool] = lambda: False) -> Run:
    """Take one probe of a finished run at the steps it names and keep the measurement; none of a run that diverged.

    Raises:
        Interrupted: `should_stop` turned true while another run that the probe compares with was trained.
        StoreError: the run was computed in another numeric environment, and `allow_mixed` is not set.
    """
    began, execution = time.process_time(), setting.execution
    mixed = refuse_mixed(execution, run.result["environment"], f"run {run.run_id} was computed")
    steps = [] if run.status == "diverged" else probe.looks(run.spec.first_step, run.last_step)
    observers = _observers([probe], setting) if steps else []
    if any(lacking(run, frozenset(steps), observers)):
        run = execute(setting, frozenset(steps), should_stop, observers)  # one replay for all
    with settled(execution):
        looks = _looks(probe, Subject(run, setting, tuple(steps), should_stop))
    found = Measurement(
        probe=probe.model_dump(mode="json"),
        looks=looks,
        data_digest=run.result["data_digest"],
        environment=execution.environment,
        mixed=tuple(mixed),
        seconds=time.process_time() - began,
    )
    Store(execution.store).add_measurement(run.run_id, probe_id(probe), found.to_json())
    return run


def _looks(probe: Probe, subject: Subject) -> tuple[Look, ...]:
    """What a probe finds at each step, with where it looked."""
    if not subject.steps:
        return ()
    timetable = Timetable(subject.spec.train, subject.run.result["num_train"])
    return tuple(
        Look(step, step / timetable.steps_per_epoch, timetable.lr(max(0, step - 1)), finite(values))
        for step, values in zip(subject.steps, probe.take(subject), strict=True)
    )
