"""Plan, carry out, judge and report: what a Python caller and the command line both use."""

import difflib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from overparam.analyse.claims import Verdict, judge
from overparam.analyse.frame import level_text
from overparam.backends.jobs import open_backend, refuse_unknown
from overparam.data.load import remark
from overparam.execution import Execution
from overparam.identity import RunId, run_id
from overparam.overrides import Assignment, OverrideError, applies, apply, parse_assignments, value_at
from overparam.paths import report_dir
from overparam.report.render import StudyResult, core_seconds, render
from overparam.report.tables import texts
from overparam.request import Request, python_call
from overparam.rng.numpy_generators import numpy_generator
from overparam.specs import Arm, Cell, Design, Level, Preset, RunSpec, Study
from overparam.store.provenance import numeric
from overparam.store.store import Store
from overparam.stored import stored
from overparam.studies import STUDIES
from overparam.sweep import Plan, Progress, Scheduler, Swept, make_plan

if TYPE_CHECKING:
    from overparam.costs import CostModel


@dataclass(frozen=True)
class Experiment:
    """A study at one preset, with seeds and overrides settled: cells of runs and the claims about them."""

    study: Study
    preset: Preset
    design: Design
    cells: tuple[Cell, ...]
    overrides: tuple[str, ...] = ()

    @property
    def specs(self) -> tuple[RunSpec, ...]:
        return tuple(cell.spec for cell in self.cells)


def experiment(
    name: str, preset: Preset = "smoke", *, num_seeds: int | None = None, overrides: Sequence[str] = ()
) -> Experiment:
    """Look a study up and settle its seeds and overrides.

    Raises:
        ValueError: no such study or preset, or an override does not fit every run.
    """
    if name not in STUDIES:
        raise ValueError(f'unknown study "{name}"; this version has: {", ".join(STUDIES)}{_nearest(name, STUDIES)}')
    study = STUDIES[name]
    if preset not in study.designs:
        raise ValueError(_no_preset(study, preset))
    design = study.designs[preset]
    if num_seeds is not None:
        design = design.model_copy(update={"seeds": tuple(range(num_seeds))})
    return of_design(study, preset, design, overrides)


def _no_preset(study: Study, preset: str) -> str:
    presets = ", ".join(study.designs)
    return f'study {study.name} has no preset "{preset}"; it has: {presets}{_nearest(preset, study.designs)}'


def _nearest(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(words), n=1)
    return f"; nearest match: {near[0]}" if near else ""


def of_design(study: Study, preset: Preset, design: Design, overrides: Sequence[str] = ()) -> Experiment:
    """A design with its cells laid out, after `--set` assignments to the runs that use their fields.

    Raises:
        ValueError: an assignment is wrong, no run uses it, or it would change what the study compares.
    """
    design = overridden(design, overrides)
    study = study.model_copy(update={"designs": {**study.designs, preset: design}})
    return Experiment(study, preset, design, tuple(design.cells()), tuple(overrides))


def overridden(design: Design, overrides: Sequence[str]) -> Design:
    """The design with assignments applied to its levels, or every error at once."""
    assignments = parse_assignments(overrides)
    places = [(arm, level) for arm in design.arms for level in arm.levels]
    unused = [a for a in assignments if not any(_uses(level, a, assignments) for _, level in places)]
    problems: dict[str, list[str]] = {problem: [] for arm in design.arms for problem in _compared(arm, assignments)}
    changed: dict[str, list[Level]] = {arm.name: [] for arm in design.arms}
    for number, (arm, level) in enumerate(places):
        mine = [a for a in assignments if _uses(level, a, assignments) or (number == 0 and a in unused)]
        try:
            changed[arm.name].append(level.model_copy(update={"spec": apply(level.spec, mine)}))
        except OverrideError as error:
            for problem in error.problems:
                problems.setdefault(problem, []).append(f" (arm {arm.name}, level {level_text(level.level)})")
    if not problems and unused:
        problems = {f"{path}: no run of this study uses it": [] for path, _ in unused}
    if problems:
        raise OverrideError(problem + "".join(where if len(where) == 1 else ()) for problem, where in problems.items())
    arms = (arm.model_copy(update={"levels": tuple(changed[arm.name])}) for arm in design.arms)
    claims = (claim.model_copy(update={"comparable": claim.comparable and not overrides}) for claim in design.claims)
    return design.model_copy(update={"arms": tuple(arms), "claims": tuple(claims)})


def _uses(level: Level, assignment: Assignment, assignments: Sequence[Assignment]) -> bool:
    return applies(level.spec, assignment[0], [path for path, _ in assignments])


def _compared(arm: Arm, assignments: Sequence[Assignment]) -> Iterable[str]:
    """Which assignments would change what an arm compares."""
    for assignment in assignments:
        path = assignment[0]
        values = [value_at(level.spec, path) for level in arm.levels if _uses(level, assignment, assignments)]
        if path.split(".")[0] in ("seed", "streams"):
            yield f"{path}: the seeds of a study are its replicates; use --seeds to choose how many"
        elif any(value != values[0] for value in values):
            shown = ", ".join(dict.fromkeys(str(value) for value in values))
            yield f"{path}: its values in arm {arm.name} ({shown}) are what the study compares; leave it as it is"


def cost_of(plan: Plan, experiments: Iterable[Experiment], costs: "CostModel") -> dict[RunId, float]:
    """Core-seconds of every missing run, by runs of the same kind."""
    share = {
        run_id(cell.spec): level.expected_share
        for item in experiments
        for arm in item.design.arms
        for level in arm.levels
        for cell in item.cells
        if (cell.arm, cell.level) == (arm.name, level.level)
    }
    return {run.job.run_id: costs.seconds(run.job.spec, share.get(run.job.run_id, 1.0)) for run in plan.missing}


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


def frame_of(item: Experiment, execution: Execution) -> pl.DataFrame:
    """One row per cell and seed; a run that is not in the store has status "missing"."""
    records = {identity: _record(spec, identity, execution) for identity, spec in _distinct(item.specs)}
    rows = [
        {
            "arm": cell.arm,
            "level": level_text(cell.level),
            "level_value": None if isinstance(cell.level, str) else float(cell.level),
            "seed": cell.seed,
            "lr": cell.spec.train.optimizer.lr,
            **records[run_id(cell.spec)],
        }
        for cell in item.cells
    ]
    return pl.DataFrame(rows, schema=FRAME_SCHEMA)


def _distinct(specs: Iterable[RunSpec]) -> Iterable[tuple[RunId, RunSpec]]:
    return {run_id(spec): spec for spec in specs}.items()


def _record(spec: RunSpec, identity: RunId, execution: Execution) -> dict[str, Any]:
    store = Store(execution.store)
    if not store.has(identity):
        return {"run_id": identity, "status": "missing"}
    result = stored(spec, execution)
    final = result["final"]
    both = final["train_accuracy"], final["test_accuracy"]
    gap = None if None in both else both[0] - both[1]
    numbers = {name: result[name] for name in ("status", "steps", "epochs", "seconds", "num_train", "num_test")}
    risks = {name: final[name] for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")}
    origin = {"data_digest": result["data_digest"], "environment": numeric(result["environment"])}
    return {"run_id": identity, **numbers, **risks, "gap": gap, **origin, "mixed": "; ".join(result.get("mixed", ()))}


FRAME_SCHEMA: dict[str, Any] = {
    "arm": pl.String,
    "level": pl.String,
    "level_value": pl.Float64,
    "seed": pl.Int64,
    "lr": pl.Float64,
    "run_id": pl.String,
    "status": pl.String,
    "train_loss": pl.Float64,
    "train_accuracy": pl.Float64,
    "test_loss": pl.Float64,
    "test_accuracy": pl.Float64,
    "gap": pl.Float64,
    "steps": pl.Int64,
    "epochs": pl.Float64,
    "seconds": pl.Float64,
    "num_train": pl.Int64,
    "num_test": pl.Int64,
    "data_digest": pl.String,
    "environment": pl.String,
    "mixed": pl.String,
}


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
        return pl.concat(frames)

    def claims(self) -> tuple[Verdict, ...]:
        """The verdict of every claim."""
        return tuple(verdict for result in self.results for verdict in result.verdicts)

    def core_seconds(self) -> float:
        """CPU time that the finished runs took, each run once."""
        return core_seconds(pl.concat([result.frame for result in self.results]))

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
    plan = make_plan((spec for item in items for spec in item.specs), execution)
    number = default_workers() if workers is None else workers
    costs = cost_of(plan, items, _cost_model(execution, number)) if len(plan.missing) > number else {}
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


def _cost_model(execution: Execution, workers: int) -> "CostModel":
    from overparam.costs import CostModel  # it trains, and so loads torch

    return CostModel(execution, workers)


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
            raise ValueError(_no_preset(wanted, preset))
        return (of_design(wanted, preset, wanted.designs[preset], overrides),)
    items = (wanted,) if isinstance(wanted, RunSpec) else tuple(wanted)
    specs = [item for item in items if isinstance(item, RunSpec)]
    if len(specs) == len(items):
        return (of_specs(specs, overrides),)
    if specs:
        raise ValueError("studies and runs cannot be mixed in one call; call run for each")
    return tuple(experiment(str(name), preset, overrides=overrides) for name in dict.fromkeys(items))


def of_specs(specs: Sequence[RunSpec], overrides: Sequence[str] = ()) -> Experiment:
    """Plain runs without claims, as a study of one arm: a level is a spec up to its seed.

    Raises:
        ValueError: no run was given.
    """
    if not specs:
        raise ValueError("no runs were given; give at least one RunSpec")
    seeds: dict[RunSpec, list[int]] = {}
    for spec in dict.fromkeys(specs):
        seeds.setdefault(spec.model_copy(update={"seed": 0}), []).append(spec.seed)
    levels = tuple(Level(level=f"run {number}", spec=spec) for number, spec in enumerate(seeds))
    arm = Arm(name="runs", title="Runs", note="", levels=levels)
    all_seeds = tuple(sorted({spec.seed for spec in specs}))
    design = Design(seeds=all_seeds, arms=(arm,), claims=(), caption="Runs as given.")
    study = Study(name="runs", title="Runs", question="", background="", factor="run", designs={"smoke": design})
    item = of_design(study, "smoke", design, overrides)
    given = {(f"run {number}", seed) for number, group in enumerate(seeds.values()) for seed in group}
    return replace(item, cells=tuple(cell for cell in item.cells if (cell.level, cell.seed) in given))
