"""Plan, carry out, judge and report: what a Python caller and the command line both use."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from overparam.claims.sample import level_text
from overparam.claims.verdict import Verdict, judge
from overparam.data.load import remark
from overparam.data.types import DataError
from overparam.foundations.numpy_generators import numpy_generator
from overparam.foundations.paths import report_dir
from overparam.identity import RunId, Spec, run_id
from overparam.lab.backends.jobs import open_backend, refuse_unknown
from overparam.lab.costs import CostModel
from overparam.lab.experiment import Experiment, experiment, of_design, of_specs, preset_of
from overparam.lab.request import Request, python_call
from overparam.lab.schedule import Plan, Planned, Progress, Scheduler, Swept, make_plan
from overparam.lab.table import frame_of, readings_of
from overparam.probes.every import Measured
from overparam.report.render import StudyResult, core_seconds, render
from overparam.report.tables import texts
from overparam.report.written import stem
from overparam.runs.execution import Execution
from overparam.specs import RunSpec
from overparam.studies.study import Design, Level, Preset, Study


def cost_of(
    plan: Plan, experiments: Iterable[Experiment], costs: CostModel, *, unreadable_is_free: bool = False
) -> dict[RunId, float]:
    """Core-seconds of every missing run, by runs of the same kind.

    With `unreadable_is_free` a run whose data cannot be read costs 0: it fails when its turn comes, and others do not.

    Raises:
        DataError: the data of a run is missing or damaged.
    """
    share: dict[RunId, float] = {}
    for item in experiments:
        expected = {(arm.name, each.level): each.expected_share for arm in item.design.arms for each in arm.levels}
        share |= {run_id(cell.spec): expected[cell.arm, cell.level] for cell in item.cells}
    found: dict[RunId, float] = {}
    for run in plan.missing:
        identity = run.job.run_id
        try:
            found[identity] = _cost(run, share.get(identity, 1.0), costs)
        except DataError:
            if not unreadable_is_free:
                raise
            found[identity] = 0.0
    return found


def _cost(run: Planned, share: float, costs: CostModel) -> float:
    """Training if it is not there yet, or once more if it lacks a state that a probe wants, and the probes."""
    spec, probes = run.job.spec, run.job.probes
    training = 0.0 if run.trained else costs.seconds(spec, share, run.job.evaluations)
    return training + costs.probe_seconds(spec, probes)


def plan_of(items: Sequence[Experiment], execution: Execution) -> Plan:
    """Every run of the experiments once, with the probes that any of them takes of it."""
    probes: dict[RunId, list[Measured]] = {}
    evaluations: dict[RunId, int] = {}
    for item in items:
        for cell in item.cells:
            identity, usual = run_id(cell.spec), item.design.evaluations or execution.evaluations
            probes.setdefault(identity, []).extend(item.design.probes_of(cell))
            evaluations[identity] = max(usual, evaluations.get(identity, 0))  # as often as any of the studies wants
    return make_plan((spec for item in items for spec in item.specs), execution, probes, evaluations)


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


def study_result(item: Experiment, execution: Execution, command: str) -> StudyResult:
    """Frame, verdicts and notes of one experiment, as the report wants them."""
    frame = frame_of(item, execution)
    generator = numpy_generator(0, "bootstrap", item.study.name, item.preset)
    verdicts = judge(frame, item.design.claims, generator=generator)
    return StudyResult(
        study=item.study,
        preset=item.preset,
        frame=frame,
        verdicts=verdicts,
        command=command,
        notes=_notes(item, frame),
        readings=readings_of(item, execution),
        data_notes=_data_notes(item, execution),
    )


def _data_notes(item: Experiment, execution: Execution) -> tuple[str, ...]:
    sources = {cell.spec.data.name: cell.spec.data for cell in item.cells}
    return tuple(note for data in sources.values() if (note := remark(data, execution.data_dir)))


def _notes(item: Experiment, frame: pl.DataFrame) -> tuple[str, ...]:
    notes = [f"Some runs went on in another numeric environment ({text})." for text in texts(frame["mixed"])]
    if len(environments := texts(frame["environment"])) > 1:
        notes.append(f"Runs come from several numeric environments: {' | '.join(environments)}.")
    if any("device cuda" in text for text in environments):
        notes.append("On CUDA bits are promised only where torch has a deterministic form of every operation.")
    usual = item.preset_seeds
    if usual is not None and item.design.seeds != usual:
        notes.append(f"{len(item.design.seeds)} seeds instead of the preset's {len(usual)}.")
    if item.overrides:
        notes.append(f"Changed by hand: {', '.join(item.overrides)}. The claims were written for the preset as it is.")
        notes += _wrong_labels(item.given, item.design)
    return tuple(notes)


def _wrong_labels(before: Design, now: Design) -> Iterable[str]:
    """Levels that are named after their batch size and lost it, because the training set was made smaller."""
    for old, arm in zip(before.arms, now.arms, strict=True):
        for was, level in zip(old.levels, arm.levels, strict=True):
            actual = _batch_size(level)
            if was.level == _batch_size(was) and actual not in (None, level.level):
                yield f"{arm.title}, {level_text(level.level)}: the batch size is {actual} here, not that of its label."


def _batch_size(level: Level) -> int | None:
    """In examples, if it follows from the spec alone."""
    size = level.spec.train.batch_size
    return level.spec.data.known_num_train() if size == "full" else size


@dataclass(frozen=True)
class Results:
    """What came out of `run`."""

    experiments: tuple[Experiment, ...]
    execution: Execution
    command: str

    def frame(self) -> pl.DataFrame:
        """All runs, one row per study, cell and seed."""
        frames = [result.frame.with_columns(pl.lit(result.study.name).alias("study")) for result in self.results]
        return pl.concat(frames, how="diagonal")

    def claims(self) -> tuple[Verdict, ...]:
        """The verdict of every claim."""
        return tuple(verdict for result in self.results for verdict in result.verdicts)

    def core_seconds(self) -> float:
        """CPU time that the finished runs took, each run once."""
        return core_seconds(pl.concat([result.frame for result in self.results], how="diagonal"))

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report into the directory `path` (default: beside the runs) and return its page."""
        folder = report_dir(self.execution.store) if path is None else Path(path)
        return render(self.results, folder)

    @cached_property
    def results(self) -> tuple[StudyResult, ...]:
        """Frame, verdicts and notes of each study, as they are in the store now."""
        return tuple(study_result(item, self.execution, self.command) for item in self.experiments)


class RunsFailed(RuntimeError):
    """Runs failed; the others are in the store, and `results` has their frame, claims and report."""

    def __init__(self, message: str, results: Results) -> None:
        super().__init__(message)
        self.results = results


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


def default_workers() -> int:
    """One worker per core."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
