"""The Python entry points, as a user calls them."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

import overparam as op
from overparam.claims.estimand import level_text
from overparam.data.types import DataError
from overparam.identity import run_id
from overparam.lab.costs import CostModel
from overparam.lab.experiment import experiment, of_specs
from overparam.lab.plan import cost_of, plan_of
from overparam.lab.request import Request
from overparam.lab.results import RunsFailed, study_result
from overparam.studies.catalogue import STUDIES
from overparam.studies.study import Arm, Design, Level, Study


def spec(seed: int = 0) -> op.RunSpec:
    return op.RunSpec(
        data=op.DataSpec(name="digits", num_train=100, num_test=100),
        model=op.MLP(width=8),
        train=op.TrainSpec(optimizer=op.SGD(lr=0.1), batch_size=8, epochs=6),
        seed=seed,
    )


def test_a_list_of_specs_runs_and_reports(tmp_path: Path) -> None:
    results = op.run([spec(0), spec(1)], store=tmp_path / "runs", workers=1)
    frame = results.frame()
    assert frame["status"].to_list() == ["ok", "ok"]
    assert frame["test_accuracy"][0] == op.train(spec(0), store=tmp_path / "runs").test_accuracy
    assert results.claims() == ()
    assert results.report(tmp_path / "out").read_text().startswith("<!doctype html>")


@pytest.mark.usefixtures("in_process")
def test_a_study_runs_by_name_with_overrides(tmp_path: Path) -> None:
    changes = {"data.num_train": 100, "data.num_test": 100, "train.steps": 2, "train.epochs": 1, "model.width": 8}
    results = op.run("batch_size", store=tmp_path / "runs", overrides=changes, workers=1)
    assert len(results.claims()) == 6
    assert set(results.frame()["study"]) == {"batch_size"}
    bounded = results.frame().filter(pl.col("arm") == "equal_steps")
    assert set(bounded["steps"]) == {2}
    assert set(results.frame()["num_train"]) == {100}
    page = results.report().read_text()
    assert "Changed by hand: data.num_train=100" in page
    assert "overparam.run(&#39;batch_size&#39;, preset=&#39;smoke&#39;, overrides=[" in page
    assert "<dt>train.steps</dt><dd>2</dd>" in page and "<dd>1000</dd>" not in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 3}, "seed: the seeds of a study are its replicates; use --seeds"),
        ({"streams.order": 3}, "streams.order: the seeds of a study are its replicates"),
        ({"train.batch_size": 32}, r"train.batch_size: its values in arm equal_epochs \(8, 32, 128, full\) are what"),
        ({"train.optimizer.lr": 0.1}, "train.optimizer.lr: its values in arm linear_lr"),
        ({"model.channels": 0}, r"model.channels = 0; allowed: an integer ≥ 1 \(|model.channels = 0; allowed"),
        ({"train.epochs": 0, "model.widht": 3}, r"(?s)model.widht = 3: no such field.*train.epochs = 0; allowed"),
    ],
)
def test_what_a_study_compares_cannot_be_set(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        experiment("batch_size", overrides=[f"{path}={value}" for path, value in change.items()])


def test_an_override_that_no_run_uses_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train.steps: no run uses it .study runs"):
        op.run([spec(0)], store=tmp_path, overrides={"train.steps": 5})


def test_changed_designs_say_so() -> None:
    item = experiment("batch_size", "paper", overrides=["data.num_train=1000", "train.epochs=2"])
    assert any(claim.comparable for claim in experiment("batch_size", "paper").design.claims)
    assert not any(claim.comparable for claim in item.design.claims)
    notes = " ".join(study_result(item, op.Execution(store=Path("nowhere")), "c").notes)
    assert "Changed by hand: data.num_train=1000, train.epochs=2" in notes
    assert "Equal epochs, 2048: the batch size is 1000 here, not that of its label" in notes


@pytest.mark.parametrize("study", ["ntk_regime", "double_descent", "lottery_ticket"])
def test_levels_that_are_no_batch_sizes_are_not_taken_for_such(study: str) -> None:
    item = experiment(study, overrides=["data.num_test=50"])
    notes = study_result(item, op.Execution(store=Path("nowhere")), "c").notes
    assert [note for note in notes if "batch size" in note] == []
    assert sum("Changed by hand" in note for note in notes) == 1


def test_every_seed_of_a_cell_is_another_run() -> None:
    for overrides in ((), ("train.epochs=2",), ("data.num_train=100",)):
        cells = experiment("batch_size", overrides=overrides).cells
        groups = {(cell.arm, cell.level) for cell in cells}
        assert len({(cell.arm, cell.level, run_id(cell.spec)) for cell in cells}) == 5 * len(groups)


@pytest.mark.usefixtures("in_process")
def test_runs_are_grouped_by_what_differs_but_the_seed(tmp_path: Path) -> None:
    wide = spec(0).model_copy(update={"model": op.MLP(width=9)})
    results = op.run([spec(0), spec(1), spec(2), wide], store=tmp_path, workers=1)
    assert results.frame().group_by("level").len().sort("level")["len"].to_list() == [3, 1]
    with pytest.raises(ValueError, match="no runs were given"):
        op.run([], store=tmp_path)
    with pytest.raises(ValueError, match="cannot be mixed"):
        op.run(["batch_size", spec(0)], store=tmp_path)  # type: ignore[arg-type]


@pytest.mark.usefixtures("in_process")
def test_failed_runs_are_raised_after_the_others_are_kept(tmp_path: Path) -> None:
    lost = spec(1).model_copy(update={"data": op.DataSpec(name="nowhere", num_train=10)})
    with pytest.raises(RunsFailed, match=r'1 of 2 runs failed, the others are kept: .*"nowhere" is not embedded') as e:
        op.run([spec(0), lost], store=tmp_path, workers=2, data_dir=tmp_path)
    assert e.value.results.frame()["status"].to_list() == ["ok", "missing"]
    assert e.value.results.report().is_file()


def test_data_that_cannot_be_read_costs_nothing_only_where_the_run_may_fail_alone(tmp_path: Path) -> None:
    lost = spec(1).model_copy(update={"data": op.DataSpec(name="nowhere", num_train=10)})
    execution = op.Execution(store=tmp_path / "runs", data_dir=tmp_path)
    item, model = of_specs([spec(0), lost]), CostModel(execution, workers=1)
    plan = plan_of([item], execution)
    with pytest.raises(DataError, match='"nowhere" is not embedded'):
        cost_of(plan, [item], model)
    costs = cost_of(plan, [item], model, unreadable_is_free=True)
    assert costs[run_id(lost)] == 0.0 < costs[run_id(spec(0))]


@pytest.mark.usefixtures("in_process")
def test_what_was_asked_for_is_remembered_before_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunsFailed) as e:
        op.run("batch_size", workers=1, data_dir="data", overrides="data.name=nowhere")
    request = Request.load(tmp_path / "runs")
    assert (request.studies, request.overrides) == (("batch_size",), ("data.name=nowhere",))
    assert request.data_dir == str(tmp_path / "data"), "another working directory finds it, too"
    assert set(e.value.results.frame()["status"]) == {"missing"}


def declared(name: str, num_train: int = 100) -> Study:
    """A study of two runs."""
    run = spec().model_copy(update={"data": op.DataSpec(name="digits", num_train=num_train, num_test=100)})
    arm = Arm(name="a", title="A", note="", levels=(Level(value=8, spec=run),))
    design = Design(seeds=(0, 1), arms=(arm,), claims=(), caption="")
    return Study(name=name, title=name, question="", background="", factor="f", designs={"smoke": design})


@pytest.mark.usefixtures("in_process")
def test_studies_of_ones_own_are_run_and_not_taken_for_those_of_the_same_name(tmp_path: Path) -> None:
    results = op.run([declared("batch_size"), declared("other")], store=tmp_path, workers=1)
    assert results.frame()["study"].to_list() == ["batch_size"] * 2 + ["other"] * 2
    assert set(results.frame()["status"]) == {"ok"}
    assert [result.notes for result in results.studies] == [(), ()], "their seeds are not compared with a built-in's"
    assert not (tmp_path / "request.json").exists()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([declared("a"), declared("a", 90)], 'two studies are named "a"; give each a name of its own'),
        ([declared("a b"), declared("c"), declared("A/b")], 'two studies are named "a b" and "A/b", which would share'),
        (3, "cannot run 3; allowed: a study's name, a Study, a RunSpec"),
        (["batch_size", 3], "cannot run 3; allowed"),
        ([declared("a"), spec(0)], "cannot be mixed"),
        ([declared("a"), "batchsize"], 'unknown study "batchsize"'),
    ],
)
def test_what_cannot_be_run_is_named(tmp_path: Path, wanted: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        op.run(wanted, store=tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("in_process")
def test_overrides_may_be_one_text_or_hold_specs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^train.epoch = 5: no such field"):
        op.run([spec(0)], store=tmp_path, overrides="train.epoch=5")
    with pytest.raises(ValueError, match="train.optimizer = <object .*; allowed: a number, a text"):
        op.run([spec(0)], store=tmp_path, overrides={"train.optimizer": object()})
    changes = {"train.optimizer": op.Adam(lr=0.01), "train.epochs": 1}
    results = op.run([spec(0)], store=tmp_path, workers=1, overrides=changes)
    (run,) = results.experiments[0].specs
    assert (run.train.optimizer, run.train.epochs) == (op.Adam(lr=0.01), 1)
    assert results.frame()["lr"].to_list() == [0.01]


def test_wrong_names_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='unknown study "batchsize"; this version has: batch_size'):
        op.run("batchsize", store=tmp_path)
    with pytest.raises(ValueError, match="train.epoch = 5: no such field"):
        op.run("batch_size", store=tmp_path, overrides={"train.epoch": 5})
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("preset", ["smoke", "laptop", "overnight", "paper"])
@pytest.mark.parametrize("name", STUDIES)
def test_every_design_is_sound(name: str, preset: str) -> None:
    """Claims point at cells, at most six are confirmatory, and every run of an arm has every seed of the arm."""
    item = experiment(name, preset)
    assert 1 <= sum(claim.confirmatory for claim in item.design.claims) <= 6
    assert len({claim.name for claim in item.design.claims}) == len(item.design.claims)
    seeds = {arm.name: item.design.seeds[: arm.num_seeds] for arm in item.design.arms}
    levels = {(cell.arm, level_text(cell.level)) for cell in item.cells}
    assert len(item.cells) == sum(len(seeds[arm]) for arm, _ in levels)
    assert all(cell.seed in seeds[cell.arm] for cell in item.cells)
    assert len(item.design.seeds) >= 5


def test_seeds_are_shared_across_the_swept_factor() -> None:
    cells = experiment("batch_size", num_seeds=3).cells
    by_level: dict[tuple[str, object], set[int]] = {}
    for cell in cells:
        by_level.setdefault((cell.arm, cell.level), set()).add(cell.spec.seed)
    assert set(map(frozenset, by_level.values())) == {frozenset({0, 1, 2})}
