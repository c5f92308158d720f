"""Early stopping: looks while a run trains, and what they say of it."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from overparam.data.load import prepare
from overparam.foundations.torch_generators import torch_generator
from overparam.identity import run_id
from overparam.models.build import build
from overparam.models.risk import risk
from overparam.probes.early_stop import EarlyStop
from overparam.probes.probe import probe_id
from overparam.probes.taking import execute_and_measure
from overparam.runs.attempt import Interrupted
from overparam.runs.checks import UnsupportedSpec
from overparam.runs.execute import execute
from overparam.runs.execution import Execution
from overparam.runs.setting import Setting
from overparam.runs.store import Store
from overparam.runs.training.loop import Moment
from overparam.specs import MLP, SGD, DataSpec, Magnitude, Rewind, RunSpec, TrainSpec

LOOKS = EarlyStop(every=10, growth=1.5)


def spec(**fields: Any) -> RunSpec:
    base = {
        "data": DataSpec(name="digits", num_train=300, num_val=200, num_test=300),
        "model": MLP(width=32, depth=3),
        "train": TrainSpec(optimizer=SGD(lr=0.3), batch_size=30, steps=200, schedule="constant"),
    }
    return RunSpec.model_validate(base | fields)


def measured(of: RunSpec, execution: Execution, probe: EarlyStop = LOOKS) -> dict[str, Any]:
    run = execute_and_measure(Setting(of, execution), frozenset(), [probe], lambda: False)
    found: dict[str, Any] = Store(execution.store).measurement(run.run_id, probe_id(probe))["rows"][0]
    return found


def test_looks_spread_and_end_with_the_run() -> None:
    steps = sorted(EarlyStop().watched(0, 12_000))
    assert steps[:11] == [100 * k for k in range(1, 12)] and steps[-1] == 12_000
    assert all(step % 100 == 0 for step in steps) and len(steps) < 45
    assert all(b / a <= 1.2 for a, b in pairwise(steps[9:]))
    assert sorted(LOOKS.watched(50, 100)) == [70, 100]


def test_the_lowest_validation_loss_is_found_and_tested_there(tmp_path: Path) -> None:
    """Against every look done by hand on the replayed states."""
    execution = Execution(store=tmp_path)
    found, run = measured(spec(), execution), execute(Setting(spec(), execution))
    examples = prepare(run.spec.data, data_dir=None)
    model = build(run.spec.model, examples.input_shape, examples.num_classes, generator=torch_generator(0, "x"))
    byhand = {}
    for step in sorted(LOOKS.watched(0, 200)):
        model.load_state_dict(run.weights(step))
        val, test = ((torch.from_numpy(s.x), torch.from_numpy(s.y)) for s in (examples.val, examples.test))
        byhand[step] = risk(model, *val).loss, risk(model, *test).accuracy
    best = min(byhand, key=lambda step: byhand[step][0])
    assert 10 < best < 200, "the test needs a run that overfits"
    assert (found["early_stop_step"], found["early_stop_val_loss"]) == (best, byhand[best][0])
    assert found["early_stop_accuracy"] == byhand[best][1]
    assert found["early_stop_censored"] == 0.0
    assert found["val_losses"] == [loss for loss, _ in byhand.values()]


def correct_at_lowest(execution: Execution) -> list[int]:
    """Bits of the test examples that a watched run classified correctly at the look of lowest validation loss."""
    kept = Store(execution.store).test_correct(run_id(spec()))
    assert kept is not None
    return np.unpackbits(kept[LOOKS.correct["early_stop_correct"]], count=300).tolist()


@pytest.mark.parametrize("how", ["live", "replayed", "interrupted"])
def test_the_correct_test_examples_are_kept_at_the_lowest_validation_loss(tmp_path: Path, how: str) -> None:
    """Against the replayed weights; the run goes on long after, and through a checkpoint."""
    execution, calls = Execution(store=tmp_path), iter(range(10_000))
    if how == "replayed":
        execute(Setting(spec(), execution))
    if how == "interrupted":
        with pytest.raises(Interrupted):
            execute_and_measure(Setting(spec(), execution), frozenset(), [LOOKS], lambda: next(calls) >= 100)
        assert Store(tmp_path).checkpoint(run_id(spec())) is not None
    found, run = measured(spec(), execution), execute(Setting(spec(), execution))
    bits = correct_at_lowest(execution)
    assert sum(bits) / 300 == found["early_stop_accuracy"] != run.test_accuracy
    x, y = run.data("test")
    assert bits == (run.model(int(found["early_stop_step"]))(x).argmax(1) == y).tolist()


def test_a_run_that_is_still_getting_better_is_censored(tmp_path: Path) -> None:
    short = spec(train=TrainSpec(optimizer=SGD(lr=0.01), batch_size=30, steps=40, schedule="constant"))
    found = measured(short, Execution(store=tmp_path))
    assert (found["early_stop_step"], found["early_stop_censored"]) == (40.0, 1.0)


def test_looking_changes_nothing_and_a_finished_run_is_looked_at_in_a_replay(tmp_path: Path) -> None:
    plain, watched = Execution(store=tmp_path / "plain"), Execution(store=tmp_path / "watched")
    before = execute(Setting(spec(), plain)).result["states"]
    assert measured(spec(), watched) == measured(spec(), plain)
    assert execute(Setting(spec(), watched)).result["states"] == before


def test_an_interrupted_run_goes_on_looking_where_it_was(tmp_path: Path) -> None:
    """The lowest loss so far must survive: else test examples are looked at where they would not have been."""
    straight, broken, calls = Execution(store=tmp_path / "a"), Execution(store=tmp_path / "b"), iter(range(10_000))
    with pytest.raises(Interrupted):
        execute_and_measure(Setting(spec(), broken), frozenset(), [LOOKS], lambda: next(calls) >= 60)
    assert measured(spec(), broken) == measured(spec(), straight)
    assert execute(Setting(spec(), broken)).result["observed"] == execute(Setting(spec(), straight)).result["observed"]


def test_a_rewound_ticket_is_looked_at_from_where_it_starts(tmp_path: Path) -> None:
    ticket = spec(init=Rewind(of=spec(), step=50), mask=Magnitude(of=spec(), fraction=0.5))
    assert measured(ticket, Execution(store=tmp_path))["steps"] == sorted(LOOKS.watched(50, 200))


def test_no_validation_examples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedSpec, match=r"data.num_val = 0, but early stopping needs"):
        measured(spec(data=DataSpec(name="digits", num_train=100)), Execution(store=tmp_path))
    assert not list(Store(tmp_path).run_ids())


def test_a_run_that_diverged_has_none(tmp_path: Path) -> None:
    wild = spec(train=TrainSpec(optimizer=SGD(lr=1e6), batch_size=30, steps=40, schedule="constant"))
    run = execute_and_measure(Setting(wild, Execution(store=tmp_path)), frozenset(), [LOOKS], lambda: False)
    assert run.status == "diverged" and math.isnan(run.test_loss)
    assert Store(tmp_path).measurement(run.run_id, probe_id(LOOKS))["rows"] == []


def test_a_run_that_ends_before_the_first_look_has_no_value(tmp_path: Path) -> None:
    quick = TrainSpec(optimizer=SGD(lr=0.1), batch_size=30, steps=200, schedule="constant", until_train_loss=2.2)
    run = execute_and_measure(
        Setting(spec(train=quick), Execution(store=tmp_path)), frozenset(), [EarlyStop()], lambda: False
    )
    assert run.result["steps"] < 100, "the test needs a run that is over before step 100"
    row = Store(tmp_path).measurement(run.run_id, probe_id(EarlyStop()))["rows"][0]
    assert all(row[name] is None for name in EarlyStop().metrics)


class Sure(torch.nn.Module):
    """The same outputs for all examples: the surer of class 0, the higher the loss on balanced labels."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = torch.nn.Parameter(torch.tensor(logit))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(self.logit.expand(len(x), 1), (0, 9))


def test_a_loss_that_is_no_number_is_no_minimum(tmp_path: Path) -> None:
    setting = Setting(spec(), Execution(store=tmp_path))
    observer, optimizer = LOOKS.observer(setting), torch.optim.SGD([torch.zeros(1)], lr=0.1)
    rows = []
    for logit in (3.0, 2.0, math.nan, 1.0, 4.0):
        rows.append(observer.measure(Moment(10, Sure(logit), optimizer, setting.timetable, lr=0.1)))
    tested = [not math.isnan(row["test_accuracy"]) for row in rows]
    assert tested == [True, True, False, True, False], "test examples are looked at where the loss is the lowest so far"
    losses: list[float | None] = [3.0, 2.0, None, 1.0, 4.0]
    seen: dict[str, list[float | None]]
    seen = {"step": [10.0, 20.0, 30.0, 40.0, 50.0], "val_loss": losses, "test_accuracy": [0.3, 0.2, None, 0.1, None]}
    found = LOOKS.lowest(seen)
    assert (found["early_stop_step"], found["early_stop_val_loss"], found["early_stop_accuracy"]) == (40.0, 1.0, 0.1)
    observer.resume([{"val_loss": 2.5}, {"val_loss": None}])
    assert math.isnan(observer.measure(Moment(60, Sure(3.0), optimizer, setting.timetable, lr=0.1))["test_accuracy"])


def test_it_is_of_the_whole_run() -> None:
    with pytest.raises(ValueError, match=r"at = \[0.5, 1.0\], but EarlyStop is of the whole run"):
        EarlyStop(at=(0.5, 1.0))
