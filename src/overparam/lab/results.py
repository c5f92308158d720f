"""What came out of an experiment: frame, verdicts, notes, report."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from overparam.claims.estimand import level_text
from overparam.claims.verdict import Verdict, judge
from overparam.data.sources import remark
from overparam.foundations.numpy_generators import numpy_generator
from overparam.foundations.paths import report_dir
from overparam.lab.correct import correct_of
from overparam.lab.experiment import Experiment
from overparam.lab.table import frame_of, readings_of, taken_of
from overparam.report.render import StudyResult, core_seconds, render
from overparam.report.tables import texts
from overparam.runs.execution import Execution
from overparam.studies.study import Design, Level


def study_result(item: Experiment, execution: Execution, command: str) -> StudyResult:
    """Frame, verdicts and notes of one experiment, as the report wants them."""
    taken = taken_of(item, execution)
    frame, correct = frame_of(item, execution, taken), correct_of(item, execution)
    generator = numpy_generator(0, "bootstrap", item.study.name, item.preset)
    verdicts = judge(frame.hstack(correct), item.design.claims, generator=generator)
    return StudyResult(
        study=item.study,
        preset=item.preset,
        frame=frame,
        correct=correct,
        verdicts=verdicts,
        command=command,
        notes=_notes(item, frame),
        readings=readings_of(item, taken),
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
            if was.value == _batch_size(was) and actual not in (None, level.value):
                yield f"{arm.title}, {level_text(level.value)}: the batch size is {actual} here, not that of its label."


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
        frames = [result.frame.with_columns(pl.lit(result.study.name).alias("study")) for result in self.studies]
        return pl.concat(frames, how="diagonal")

    def claims(self) -> tuple[Verdict, ...]:
        """The verdict of every claim."""
        return tuple(verdict for result in self.studies for verdict in result.verdicts)

    def core_seconds(self) -> float:
        """CPU time that the finished runs took, each run once."""
        return core_seconds(pl.concat([result.frame for result in self.studies], how="diagonal"))

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report into the directory `path` (default: beside the runs) and return its page."""
        folder = report_dir(self.execution.store) if path is None else Path(path)
        return render(self.studies, folder)

    @cached_property
    def studies(self) -> tuple[StudyResult, ...]:
        """Frame, verdicts and notes of each study, as they are in the store now."""
        return tuple(study_result(item, self.execution, self.command) for item in self.experiments)


class RunsFailed(RuntimeError):
    """Runs failed; the others are in the store, and `results` has their frame, claims and report."""

    def __init__(self, message: str, results: Results) -> None:
        super().__init__(message)
        self.results = results
