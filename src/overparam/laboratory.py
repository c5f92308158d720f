"""Plan, carry out, judge and report: what a Python caller and the command line both use."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from overparam.analyse.claims import Verdict, judge
from overparam.analyse.frame import level_text
from overparam.backends.jobs import open_backend
from overparam.costs import CostModel
from overparam.execute import read
from overparam.execution import Execution
from overparam.identity import RunId, run_id
from overparam.overrides import apply_overrides
from overparam.paths import report_dir
from overparam.report.render import StudyResult, render
from overparam.rng.numpy_generators import numpy_generator
from overparam.specs import Arm, Cell, Design, Level, Preset, RunSpec, Study
from overparam.store.provenance import differences
from overparam.store.store import Store
from overparam.studies import STUDIES
from overparam.sweep import Plan, Progress, Scheduler, Swept, make_plan


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
        raise ValueError(f'unknown study "{name}"; this version has: {", ".join(STUDIES)}')
    study = STUDIES[name]
    if preset not in study.designs:
        raise ValueError(f'study {name} has no preset "{preset}"; it has: {", ".join(study.designs)}')
    design = study.designs[preset]
    if num_seeds is not None:
        design = design.model_copy(update={"seeds": tuple(range(num_seeds))})
    return of_design(study, preset, design, overrides)


def of_design(study: Study, preset: Preset, design: Design, overrides: Sequence[str]) -> Experiment:
    """A design with its cells laid out and overrides applied to every run."""
    return Experiment(study, preset, design, changed(tuple(design.cells()), overrides), tuple(overrides))


def changed(cells: tuple[Cell, ...], overrides: Sequence[str]) -> tuple[Cell, ...]:
    """Cells with `--set` assignments applied to their specs."""
    if not overrides:
        return cells
    return tuple(cell._replace(spec=apply_overrides(cell.spec, overrides)) for cell in cells)


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
    if not plan.missing:
        return Swept(0, {}, False, 0.0)
    backend = open_backend(on, min(workers, len(plan.missing)), execution)
    try:
        return Scheduler(plan, costs, backend).run(on_progress)
    finally:
        backend.close()


def frame_of(item: Experiment, execution: Execution) -> pl.DataFrame:
    """One row per cell and seed; a run that is not in the store has status "missing"."""
    store = Store(execution.store)
    records = {identity: _record(spec, identity, store, execution) for identity, spec in _distinct(item.specs)}
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


def _record(spec: RunSpec, identity: RunId, store: Store, execution: Execution) -> dict[str, Any]:
    if not store.has(identity):
        return {"run_id": identity, "status": "missing"}
    result = read(spec, execution).result
    final = result["final"]
    both = final["train_accuracy"], final["test_accuracy"]
    gap = None if None in both else both[0] - both[1]
    numbers = {name: result[name] for name in ("status", "steps", "epochs", "seconds", "num_train", "num_test")}
    risks = {name: final[name] for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")}
    mixed = differences(execution.environment, result["environment"])
    return {"run_id": identity, **numbers, **risks, "gap": gap, "environment": mixed}


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
    "environment": pl.String,
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
        environment=execution.environment,
        command=command,
        notes=_notes(item, frame),
    )


def _notes(item: Experiment, frame: pl.DataFrame) -> tuple[str, ...]:
    mixed = sorted({text for text in frame["environment"] if text})
    notes = [f"Some runs come from another numeric environment ({text}); their bits may differ." for text in mixed]
    if item.overrides:
        notes.append(f"Changed by hand: {', '.join(item.overrides)}. The claims were written for the preset as it is.")
    return tuple(notes)


@dataclass(frozen=True)
class Results:
    """What came out of `run`."""

    experiments: tuple[Experiment, ...]
    execution: Execution
    swept: Swept
    command: str

    def frame(self) -> pl.DataFrame:
        """All runs, one row per study, cell and seed."""
        frames = [
            frame_of(item, self.execution).with_columns(pl.lit(item.study.name).alias("study"))
            for item in self.experiments
        ]
        return pl.concat(frames)

    def claims(self) -> tuple[Verdict, ...]:
        """The verdict of every claim."""
        return tuple(verdict for result in self._results() for verdict in result.verdicts)

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report into the directory `path` (default: beside the runs) and return its page."""
        folder = report_dir(self.execution.store) if path is None else Path(path)
        return render(self._results(), folder)

    def _results(self) -> tuple[StudyResult, ...]:
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

    What is in the store already is not run again. `overrides={"train.epochs": 5}` changes every run;
    `settings` are those of `Execution` (device, data_dir, …).
    """
    execution = Execution(store=Path(store), **settings)
    items = _experiments(study_or_specs, preset, _assignments(overrides))
    plan = make_plan((spec for item in items for spec in item.specs), Store(execution.store))
    swept = carry_out(plan, {}, execution, workers=workers or default_workers(), on=on)
    names = " ".join(item.study.name for item in items)
    return Results(items, execution, swept, f"overparam run {names} --preset {preset}")


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
        return (of_design(wanted, preset, wanted.designs[preset], overrides),)
    items = (wanted,) if isinstance(wanted, RunSpec) else tuple(wanted)
    if all(isinstance(item, RunSpec) for item in items):
        return (of_specs([item for item in items if isinstance(item, RunSpec)], overrides),)
    return tuple(experiment(str(item), preset, overrides=overrides) for item in items)


def of_specs(specs: Sequence[RunSpec], overrides: Sequence[str] = ()) -> Experiment:
    """Plain runs without claims, as a study of one arm: level i is the i-th distinct spec up to its seed."""
    cells = tuple(Cell("runs", f"run {number}", spec.seed, spec) for number, spec in enumerate(specs))
    arm = Arm(name="runs", title="Runs", note="", levels=tuple(Level(level=c.level, spec=c.spec) for c in cells))
    design = Design(seeds=tuple(sorted({c.seed for c in cells})), arms=(arm,), claims=(), caption="Runs as given.")
    study = Study(name="runs", title="Runs", question="", background="", factor="run", designs={"smoke": design})
    return Experiment(study, "smoke", design, changed(cells, overrides), tuple(overrides))
