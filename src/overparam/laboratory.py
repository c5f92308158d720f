"""Plan, carry out, judge and report: what a Python caller and the command line both use."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from overparam.analyse.claims import Verdict, judge
from overparam.analyse.frame import level_text
from overparam.backends.jobs import open_backend, refuse_unknown
from overparam.costs import CostModel
from overparam.data.load import remark
from overparam.execution import Execution
from overparam.experiments import Experiment, experiment, no_preset, of_design, of_specs
from overparam.identity import RunId, run_id
from overparam.paths import report_dir
from overparam.report.render import StudyResult, core_seconds, render
from overparam.report.tables import texts
from overparam.request import Request, python_call
from overparam.rng.numpy_generators import numpy_generator
from overparam.specs import Design, Measured, Preset, RunSpec, Study
from overparam.studies import STUDIES
from overparam.sweep import Plan, Planned, Progress, Scheduler, Swept, make_plan
from overparam.tabulated import frame_of, readings_of


def cost_of(plan: Plan, experiments: Iterable[Experiment], costs: CostModel) -> dict[RunId, float]:
    """Core-seconds of every missing run, by runs of the same kind."""
    share = {
        run_id(cell.spec): level.expected_share
        for item in experiments
        for arm in item.design.arms
        for level in arm.levels
        for cell in item.cells
        if (cell.arm, cell.level) == (arm.name, level.level)
    }
    return {run.job.run_id: _cost(run, share.get(run.job.run_id, 1.0), costs) for run in plan.missing}


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
    if workers < 1:
        raise ValueError(f"workers = {workers}; allowed: an integer ≥ 1")
    refuse_unknown(on)
    if not plan.missing:
        return Swept(0, {}, False, 0.0)
    backend = open_backend(on, min(workers, len(plan.missing)), execution)
    try:
        return Scheduler(plan, costs, backend).run(on_progress)
    finally:
        backend.close()


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
    usual = STUDIES[item.study.name].designs[item.preset].seeds if item.study.name in STUDIES else item.design.seeds
    if item.design.seeds != usual:
        notes.append(f"{len(item.design.seeds)} seeds instead of the preset's {len(usual)}.")
    if item.overrides:
        notes.append(f"Changed by hand: {', '.join(item.overrides)}. The claims were written for the preset as it is.")
        notes += _wrong_labels(item.design)
    return tuple(notes)


def _wrong_labels(design: Design) -> Iterable[str]:
    """Levels whose batch size is not what their label says, because the training set was made smaller."""
    for arm in design.arms:
        for level in arm.levels:
            size, known = level.spec.train.batch_size, level.spec.data.known_num_train()
            actual = known if size == "full" else size
            if not isinstance(level.level, str) and actual is not None and actual != level.level:
                yield f"{arm.title}, {level_text(level.level)}: the batch size is {actual} here, not that of its label."


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


def run(
    study_or_specs: str | Study | Iterable[str] | Iterable[RunSpec] | RunSpec,
    *,
    preset: Preset = "smoke",
    store: str | Path = "runs",
    workers: int | None = None,
    on: str = "local",
    overrides: Mapping[str, object] | Sequence[str] = (),
    **settings: Any,
) -> Results:
    """Run studies (by name or as declared) or a list of specs, and hand back frame, claims and report.

    What is in the store already is not run again. `overrides={"train.epochs": 5}` changes every run that has the
    field; `settings` are those of `Execution` (device, data_dir, …).

    Raises:
        KeyboardInterrupt: Ctrl-C; finished runs and checkpoints are kept, and the same call goes on.
        RuntimeError: runs failed; the others are in the store.
    """
    execution = Execution(store=Path(store), **settings)
    texts = _assignments(overrides)
    items = _experiments(study_or_specs, preset, texts)
    plan = plan_of(items, execution)
    number = default_workers() if workers is None else workers
    costs = cost_of(plan, items, CostModel(execution, number))
    swept = carry_out(plan, costs, execution, workers=number, on=on)
    if swept.interrupted:
        raise KeyboardInterrupt("finished runs and checkpoints are kept; the same call goes on")
    if swept.failures:
        lines = "; ".join(f"{identity}: {sentence}" for identity, sentence in swept.failures.items())
        raise RuntimeError(f"{len(swept.failures)} of {len(plan.runs)} runs failed, the others are kept: {lines}")
    command = python_call([item.study.name for item in items], preset, texts)
    if not all(STUDIES.get(item.study.name) is not None for item in items):
        return Results(items, execution, f"{len(plan.runs)} runs given to overparam.run")
    data_dir = None if execution.data_dir is None else str(execution.data_dir)
    studies = tuple(item.study.name for item in items)
    Request(studies=studies, preset=preset, overrides=texts, data_dir=data_dir, command=command).save(execution.store)
    return Results(items, execution, command)


def default_workers() -> int:
    """One worker per core."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _assignments(overrides: Mapping[str, object] | Sequence[str]) -> tuple[str, ...]:
    if isinstance(overrides, Mapping):
        return tuple(f"{path}={json.dumps(value)}" for path, value in overrides.items())
    return tuple(overrides)


def _experiments(
    wanted: str | Study | Iterable[str] | Iterable[RunSpec] | RunSpec, preset: Preset, overrides: tuple[str, ...]
) -> tuple[Experiment, ...]:
    if isinstance(wanted, str):
        return (experiment(wanted, preset, overrides=overrides),)
    if isinstance(wanted, Study):
        if preset not in wanted.designs:
            raise ValueError(no_preset(wanted, preset))
        return (of_design(wanted, preset, wanted.designs[preset], overrides),)
    items = (wanted,) if isinstance(wanted, RunSpec) else tuple(wanted)
    specs = [item for item in items if isinstance(item, RunSpec)]
    if len(specs) == len(items):
        return (of_specs(specs, overrides),)
    if specs:
        raise ValueError("studies and runs cannot be mixed in one call; call run for each")
    return tuple(experiment(str(name), preset, overrides=overrides) for name in dict.fromkeys(items))
