"""The Python entry points, as a user calls them."""

from pathlib import Path

import pytest

import overparam as op
from overparam.analyse.frame import level_text
from overparam.laboratory import experiment
from overparam.studies import STUDIES


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


def test_a_study_runs_by_name_with_overrides(tmp_path: Path) -> None:
    changes = {"data.num_train": 100, "data.num_test": 100, "train.steps": 2}
    results = op.run("batch_size", store=tmp_path / "runs", overrides=changes)
    assert len(results.claims()) == 6
    assert set(results.frame()["study"]) == {"batch_size"}
    assert set(results.frame()["steps"]) <= {1, 2}
    page = results.report().read_text()
    assert "Changed by hand: data.num_train=100" in page


def test_wrong_names_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='unknown study "batchsize"; this version has: batch_size'):
        op.run("batchsize", store=tmp_path)
    with pytest.raises(ValueError, match="train.epoch = 5: no such field"):
        op.run("batch_size", store=tmp_path, overrides={"train.epoch": 5})
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("preset", ["smoke", "laptop", "overnight", "paper"])
@pytest.mark.parametrize("name", STUDIES)
def test_every_design_is_sound(name: str, preset: str) -> None:
    """Claims point at cells, at most six are confirmatory, and every run of an arm has every seed."""
    item = experiment(name, preset)  # type: ignore[arg-type]
    assert {claim.name for claim in item.design.claims} >= {"small beats large at equal epochs"}
    levels = {(cell.arm, level_text(cell.level)) for cell in item.cells}
    assert len(item.cells) == len(levels) * len(item.design.seeds)
    assert len(item.design.seeds) >= 5


def test_seeds_are_shared_across_the_swept_factor() -> None:
    cells = experiment("batch_size", num_seeds=3).cells
    by_level: dict[tuple[str, object], set[int]] = {}
    for cell in cells:
        by_level.setdefault((cell.arm, cell.level), set()).add(cell.spec.seed)
    assert set(map(frozenset, by_level.values())) == {frozenset({0, 1, 2})}
