"""Plan, carry out, judge and report: what a Python caller and the command line both use."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from overparam.identity import RunId, Spec
from overparam.lab.backends.choose import open_backend, refuse_unknown
from overparam.lab.costs import CostModel
from overparam.lab.experiment import Experiment, experiment, of_design, of_specs, preset_of
from overparam.lab.plan import Plan, cost_of, plan_of
from overparam.lab.request import Request, python_call
from overparam.lab.results import Results, RunsFailed
from overparam.lab.schedule import Progress, Scheduler, Swept, default_workers
from overparam.report.written import stem
from overparam.runs.execution import Execution
from overparam.specs import RunSpec
from overparam.studies.study import Preset, Study


def carry_out(
    plan: Plan,
    costs: Mapping[RunId, float],
    execution: Execution,
    *,
    workers: int,
    on: str = "local",
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Swept:
    """Compute what the plan lacks; nothing is started if nothing is missing."""
    refuse_unusable(workers, on)
    if not plan.missing:
        return Swept(0, {}, False)
    backend = open_backend(on, min(workers, len(plan.missing)), execution)
    try:
        return Scheduler(plan, costs, backend).run(on_progress)
    finally:
        backend.close()


def refuse_unusable(workers: int, on: str) -> None:
    """Say what cannot carry runs out, before anything is written."""
    if workers < 1:
        raise ValueError(f"workers = {workers}; allowed: an integer ≥ 1")
    refuse_unknown(on)


def run(
    study_or_specs: str | Study | RunSpec | Iterable[str | Study] | Iterable[RunSpec],
    *,
    preset: Preset = "smoke",
    store: str | Path = "runs",
    workers: int | None = None,
    on: str = "local",
    overrides: str | Mapping[str, object] | Iterable[str] = (),
    **settings: Any,
) -> Results:
    """Run studies (by name or as declared) or a list of specs, and hand back frame, claims and report.

    What is in the store already is not run again. `workers` is the number of processes, by default one per core.
    `overrides={"train.epochs": 5}`, or `"train.epochs=5"`, changes every run that has the field; `settings` are those
    of `Execution` (device, data_dir, threads of each worker, …). Studies that are named are remembered in the store,
    so that `overparam report` reads the same.

    Raises:
        ValueError: no such study, preset, field, device or backend, or a spec that cannot be trained.
        StoreError: what is stored is damaged, or was computed from other data.
        KeyboardInterrupt: Ctrl-C; finished runs and checkpoints are kept, and the same call goes on.
        RunsFailed: runs failed; the others are in the store and in its `results`.
    """
    execution = Execution(store=Path(store), **settings)
    number = default_workers() if workers is None else workers
    refuse_unusable(number, on)
    wanted, changes = _wanted(study_or_specs), _assignments(overrides)
    items = _experiments(wanted, preset, changes)
    plan = plan_of(items, execution)
    costs = cost_of(plan, items, CostModel(execution, number), unreadable_is_free=True)
    command = f"{len(plan.runs)} runs given to overparam.run"
    if all(isinstance(each, str) for each in wanted):
        command = _remember([item.study.name for item in items], preset, changes, execution)
    results = Results(items, execution, command)
    swept = carry_out(plan, costs, execution, workers=number, on=on)
    if swept.interrupted:
        raise KeyboardInterrupt("finished runs and checkpoints are kept; the same call goes on")
    if swept.failures:
        lines = "; ".join(f"{identity}: {sentence}" for identity, sentence in swept.failures.items())
        counts = f"{len(swept.failures)} of {len(plan.runs)} runs failed"
        raise RunsFailed(f"{counts}, the others are kept: {lines}", results)
    return results


def _remember(studies: Sequence[str], preset: Preset, overrides: tuple[str, ...], execution: Execution) -> str:
    """Make this what the store's report is about, and return the call that asks for it."""
    data_dir = None if execution.data_dir is None else str(execution.data_dir.resolve())
    command = python_call(studies, preset, overrides)
    request = Request(studies=tuple(studies), preset=preset, overrides=overrides, data_dir=data_dir, command=command)
    request.save(execution.store)
    return command


def _assignments(overrides: str | Mapping[str, object] | Iterable[str]) -> tuple[str, ...]:
    if isinstance(overrides, str):
        return (overrides,)
    if isinstance(overrides, Mapping):
        return tuple(f"{path}={_written(path, value)}" for path, value in overrides.items())
    return tuple(overrides)


def _written(path: str, value: object) -> str:
    """A value as the text that an assignment has; a spec becomes a table of its fields."""
    try:
        return json.dumps(value, default=_fields)
    except TypeError:
        raise ValueError(f"{path} = {value!r}; allowed: a number, a text, a list, a table or a spec") from None


def _fields(value: object) -> dict[str, Any]:
    if not isinstance(value, Spec):
        raise TypeError
    return value.model_dump(mode="json")


Wanted = str | Study | RunSpec


def _wanted(given: Wanted | Iterable[Wanted]) -> tuple[Wanted, ...]:
    """Each study or run once, in their order."""
    if isinstance(given, Wanted) or not isinstance(given, Iterable):
        given = (given,)
    items = tuple(given)
    if strangers := [each for each in items if not isinstance(each, Wanted)]:
        raise ValueError(f"cannot run {strangers[0]!r}; allowed: a study's name, a Study, a RunSpec or a list of these")
    return tuple(dict.fromkeys(items))


def _experiments(wanted: Sequence[Wanted], preset: Preset, overrides: tuple[str, ...]) -> tuple[Experiment, ...]:
    specs = [each for each in wanted if isinstance(each, RunSpec)]
    studies = [each for each in wanted if not isinstance(each, RunSpec)]
    if not studies:
        return (of_specs(specs, overrides),)
    if specs:
        raise ValueError("studies and runs cannot be mixed in one call; call run for each")
    items = tuple(_of_study(each, preset, overrides) for each in studies)
    groups: dict[str, list[str]] = {}
    for item in items:
        groups.setdefault(stem(item.study.name).lower(), []).append(item.study.name)
    if twice := next((names for names in groups.values() if len(names) > 1), None):
        same = "" if twice[0] == twice[1] else f' and "{twice[1]}", which would share their files'
        raise ValueError(f'two studies are named "{twice[0]}"{same}; give each a name of its own, or call run for each')
    return items


def _of_study(study: str | Study, preset: Preset, overrides: tuple[str, ...]) -> Experiment:
    if isinstance(study, str):
        return experiment(study, preset, overrides=overrides)
    known = preset_of(study, preset)
    return of_design(study, known, study.designs[known], overrides)
