"""Correct test examples of an experiment: what judges and the report's folder get, and what people's tables lack."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import overparam as op
from overparam.lab import results as module
from overparam.lab.correct import correct_of
from overparam.lab.experiment import of_design
from overparam.lab.results import Results, study_result
from overparam.lab.table import frame_of
from overparam.probes.early_stop import EarlyStop
from overparam.probes.label_fit import LabelFit
from overparam.probes.taking import execute_and_measure
from overparam.report.correct import correct_npz
from overparam.runs.setting import Setting
from overparam.runs.store import StoreError
from overparam.studies.study import Arm, Design, Level, Probing, Study
from tests.golden.old_study import STORE, STUDY

NUM_TEST = 150


def declared() -> Study:
    """Two widths and two seeds, of which one arm's runs are also watched for early stopping."""
    data = op.DataSpec(name="digits", num_train=40, num_val=60, num_test=NUM_TEST)
    recipe = op.TrainSpec(optimizer=op.SGD(lr=1.0), batch_size=40, steps=30, schedule="constant")
    specs = {w: op.RunSpec(data=data, model=op.MLP(width=w, depth=3), train=recipe) for w in (8, 32)}
    arms = tuple(
        Arm(name=name, title=name, note="", levels=tuple(Level(value=w, spec=specs[w]) for w in widths))
        for name, widths in (("watched", (8, 32)), ("not watched", (32,)))
    )
    probings = (Probing(probe=EarlyStop(every=3, growth=1.0), arms=("watched",)), Probing(probe=LabelFit()))
    design = Design(seeds=(0, 1), arms=arms, claims=(), caption="", probings=probings)
    return Study(name="declared", title="", question="", background="", factor="width", designs={"smoke": design})


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    study, execution = declared(), op.Execution(store=tmp_path_factory.mktemp("store"))
    item = of_design(study, "smoke", study.designs["smoke"])
    for cell in item.cells:
        execute_and_measure(Setting(cell.spec, execution), frozenset(), item.design.probes_of(cell), lambda: False)
    return Results((item,), execution, "command")


@pytest.mark.parametrize("metric", ["test_accuracy", "early_stop_accuracy", "early_stopped_test_accuracy"])
def test_the_examples_behind_an_accuracy_stand_beside_it(results: Results, metric: str) -> None:
    (result,) = results.studies
    assert result.correct is not None
    seen = result.frame.select("arm", accuracy=metric).hstack(result.correct)
    counted = 0
    for row in seen.iter_rows(named=True):
        bits = row[metric.replace("accuracy", "correct")]
        assert (bits is None) == (row["accuracy"] is None)
        if bits is not None:
            share = np.unpackbits(np.frombuffer(bits, np.uint8), count=NUM_TEST).sum() / NUM_TEST
            assert share == row["accuracy"]
            counted += 1
    assert counted == (4 if metric == "early_stop_accuracy" else 6), "null where the cell has no such probe"
    if metric != "test_accuracy":
        assert (
            result.correct["test_correct"].to_list() != result.correct[metric.replace("accuracy", "correct")].to_list()
        )


def test_judges_get_them_and_people_do_not(results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[pl.DataFrame] = []

    def judge(frame: pl.DataFrame, claims: object, generator: object) -> tuple[()]:
        judged.append(frame)
        return ()

    monkeypatch.setattr(module, "judge", judge)
    study_result(results.experiments[0], results.execution, "command")
    bits = ["test_correct", "early_stop_correct", "early_stopped_test_correct"]
    assert judged[0].select(pl.col(pl.Binary)).columns == bits
    frame = results.frame()
    assert pl.Binary not in frame.dtypes and not set(bits) & set(frame.columns)
    frame.write_csv(tmp_path / "runs.csv")
    assert frame["test_digest"].n_unique() == 1 and len(frame["test_digest"][0]) == 32


def test_every_accuracy_can_be_counted_again_from_the_folder_alone(results: Results, tmp_path: Path) -> None:
    """The table of runs has every column that a claim may name, with all digits; the archive each run once."""
    results.report(tmp_path)
    runs = pl.read_csv(tmp_path / "data" / "declared_runs.csv")
    design = results.experiments[0].design
    assert {"run_id", "arm", "level", "level_value", "seed", "status", *design.metrics} <= set(runs.columns)
    with np.load(tmp_path / "data" / "declared_test_correct.npz", allow_pickle=False) as archive:
        assert len(archive["test_correct_run_id"]) == len(set(archive["test_correct_run_id"])) == 4 < len(runs)
        for metric in ("test_accuracy", "early_stop_accuracy", "early_stopped_test_accuracy"):
            column = metric.replace("accuracy", "correct")
            bits = dict(zip(archive[f"{column}_run_id"].tolist(), archive[column], strict=True))
            for run in runs.drop_nulls(metric).iter_rows(named=True):
                counted = np.unpackbits(bits[run["run_id"]], count=run["num_test"])
                assert counted.sum() / run["num_test"] == run[metric]


def test_a_damaged_file_is_named(results: Results, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(results.execution.store, store)
    file = next(store.rglob("test_correct.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"test_correct.safetensors cannot be read .*delete the run's directory"):
        correct_of(results.experiments[0], op.Execution(store=store))


def test_a_store_of_an_older_version_has_none() -> None:
    item, execution = of_design(STUDY, "smoke", STUDY.designs["smoke"]), op.Execution(store=STORE)
    frame, correct = frame_of(item, execution, {}), correct_of(item, execution)
    assert (len(frame), "missing" in frame["status"]) == (len(correct), False)
    assert correct.null_count().row(0) == (len(correct),) * correct.width
    assert frame["test_digest"].is_null().all()
    assert correct_npz(frame, correct, data_varies=False) is None
