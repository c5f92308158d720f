"""Which test examples a run classifies correctly, as it is kept: the very examples behind its accuracies."""

import math
from pathlib import Path

import numpy as np
import pytest

from overparam.data.load import prepare
from overparam.identity import run_id
from overparam.probes.label_fit import selected
from overparam.runs.attempt import Interrupted
from overparam.runs.execute import execute, train
from overparam.runs.execution import Execution
from overparam.runs.run import Run
from overparam.runs.setting import Setting
from overparam.runs.store import Store
from overparam.specs import MLP, SGD, DataSpec, RunSpec, TrainSpec
from tests.support.small_runs import DATA, WILD, spec

# Evaluated after every one of 20 steps; the lowest validation loss is neither the first nor the last.
OVERFITTING = RunSpec(
    data=DataSpec(name="digits", num_train=40, num_val=100, num_test=77),
    model=MLP(width=32, depth=3),
    train=TrainSpec(optimizer=SGD(lr=1.0), batch_size=40, epochs=20, schedule="constant"),
)


def kept(run: Run) -> dict[str, list[int]]:
    """Bits that a run keeps, by name, without those that fill the last byte."""
    found = Store(run.execution.store).test_correct(run.run_id) or {}
    assert all(np.unpackbits(bits)[run.result["num_test"] :].sum() == 0 for bits in found.values())
    return {name: np.unpackbits(bits, count=run.result["num_test"]).tolist() for name, bits in found.items()}


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_they_are_those_of_the_final_accuracy(tmp_path: Path, loss: str) -> None:
    recipe = TrainSpec.model_validate({"optimizer": SGD(lr=0.05), "batch_size": 32, "epochs": 3, "loss": loss})
    run = train(spec(train=recipe), store=tmp_path)
    x, y = run.data("test")
    assert kept(run) == {"end": (run.model()(x).argmax(1) == y).tolist()}
    assert sum(kept(run)["end"]) / 100 == run.test_accuracy


def test_with_validation_examples_also_those_at_the_lowest_loss(tmp_path: Path) -> None:
    run = train(OVERFITTING, store=tmp_path, evaluations=20)
    losses = run.curves["val_loss"].to_list()
    best = losses.index(min(losses))
    assert 0 < best < len(losses) - 1, "the test needs a run that overfits"
    x, y = run.data("test")
    step = int(run.curves["step"][best])
    assert kept(run)["early_stopped"] == (run.model(step)(x).argmax(1) == y).tolist()
    stopped = selected(run.result["curves"])["early_stopped_test_accuracy"]
    assert sum(kept(run)["early_stopped"]) / 77 == stopped != run.test_accuracy


@pytest.mark.parametrize("stop_at", [1, 4, 12, 17])
def test_interrupted_and_resumed_is_uninterrupted(tmp_path: Path, stop_at: int) -> None:
    """Before and after the lowest validation loss."""
    straight = train(OVERFITTING, store=tmp_path / "straight", evaluations=20)
    broken, calls = Execution(store=tmp_path / "broken", evaluations=20), iter(range(100))
    with pytest.raises(Interrupted, match="its checkpoint is kept"):
        execute(Setting(OVERFITTING, broken), should_stop=lambda: next(calls) >= stop_at)
    assert kept(execute(Setting(OVERFITTING, broken))) == kept(straight)


def test_a_checkpoint_of_an_older_version_goes_on(tmp_path: Path) -> None:
    """It has no examples: what is kept of it is true, or nothing."""
    execution, calls = Execution(store=tmp_path, evaluations=20), iter(range(100))
    with pytest.raises(Interrupted):
        execute(Setting(OVERFITTING, execution), should_stop=lambda: next(calls) >= 17)
    found = Store(tmp_path).checkpoint(run_id(OVERFITTING))
    assert found is not None
    old = {name: value for name, value in found[0].items() if not name.startswith("correct/")}
    assert len(old) < len(found[0])
    Store(tmp_path).save_checkpoint(run_id(OVERFITTING), old, found[1])
    run = execute(Setting(OVERFITTING, execution))
    assert kept(run).keys() == {"end"} and sum(kept(run)["end"]) / 77 == run.test_accuracy


def test_of_a_run_that_diverged_they_are_as_its_accuracy_says(tmp_path: Path) -> None:
    run = train(spec(model=MLP(width=16), train=WILD), store=tmp_path)
    assert run.status == "diverged" and math.isnan(run.test_loss)
    assert sum(kept(run)["end"]) / 100 == run.test_accuracy


def test_runs_know_whether_they_were_tested_on_the_same_examples(tmp_path: Path) -> None:
    def digest(**data: object) -> str:
        return prepare(DATA.model_copy(update=data)).test_digest

    assert train(spec(), store=tmp_path).result["test_digest"] == digest() == digest(num_train=50, label_noise=0.5)
    assert len({digest(), digest(num_test=99), digest(normalize=False), digest(data_seed=1)}) == 4
    assert digest(num_test=None) == digest(num_test=None, data_seed=1), "all of them, whatever is drawn for training"
