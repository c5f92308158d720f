"""Made-up runs of a small study, with known numbers."""

from functools import cache

import polars as pl

from overparam.claims.verdict import judge
from overparam.foundations.numpy_generators import numpy_generator
from overparam.report.render import StudyResult
from overparam.studies.catalogue import STUDIES
from overparam.studies.study import Design, Study


def smoke(background: str = "b") -> tuple[Study, Design]:
    study = STUDIES["batch_size"].model_copy(update={"background": background})
    return study, study.designs["smoke"]


def made_up(design: Design, missing: bool = False) -> pl.DataFrame:
    """A table of runs with known numbers: one diverged run and one without any value."""
    rows = []
    generator = numpy_generator(0, "report")
    for cell in design.cells():
        accuracy = 0.9 + 0.02 * float(generator.random())
        rows.append(
            {
                "arm": cell.arm,
                "level": cell.level if isinstance(cell.level, str) else format(cell.level, "g"),
                "level_value": None if isinstance(cell.level, str) else float(cell.level),
                "seed": cell.seed,
                "lr": cell.spec.train.optimizer.lr,
                "run_id": "0" * 32,
                "status": "missing" if missing else "ok",
                "train_loss": None if missing else 0.1,
                "train_accuracy": None if missing else 0.99,
                "test_loss": None if missing else 0.3,
                "test_accuracy": None if missing else accuracy,
                "gap": None if missing else 0.99 - accuracy,
                "steps": None if missing else 100,
                "epochs": None if missing else 10.0,
                "seconds": None if missing else 1.0,
                "probe_seconds": 0.0,
                "num_train": None if missing else 1297,
                "num_test": None if missing else 500,
                "data_digest": None if missing else "d" * 32,
                "environment": None if missing else "machine x, torch 2",
                "mixed": None,
            }
        )
    if not missing:
        rows[0] |= {"status": "diverged", "train_loss": None, "test_loss": None}
    return pl.DataFrame(rows, infer_schema_length=None)


@cache
def result(missing: bool = False, background: str = "b") -> StudyResult:
    study, design = smoke(background)
    frame = made_up(design, missing).with_columns(
        *(pl.col(c).cast(pl.Float64) for c in ("test_accuracy", "train_accuracy", "gap", "train_loss", "test_loss")),
        *(pl.col(c).cast(pl.Float64) for c in ("steps", "epochs")),
    )
    verdicts = judge(frame, design.claims, generator=numpy_generator(0, "t"))
    return StudyResult(study, "smoke", frame, verdicts, "overparam run", ("a note",))
