"""Observers: what they see of a run while it trains, and that the run does not notice."""

import math
from pathlib import Path

import pytest

from overparam.identity import run_id
from overparam.runs.attempt import Interrupted
from overparam.runs.execute import execute, train
from overparam.runs.execution import Execution
from overparam.runs.run import Run
from overparam.runs.setting import Setting
from overparam.runs.store import Store
from overparam.runs.training.loop import Moment
from overparam.runs.training.observer import Observer
from overparam.specs import MLP
from tests.support.small_runs import WILD, files, spec


def norm_of(moment: Moment) -> dict[str, float]:
    squares = [float(p.detach().double().square().sum()) for p in moment.model.parameters()]
    return {"norm": math.sqrt(math.fsum(squares))}


NORM = Observer("norm at 0, 9, 28", lambda timetable: frozenset({0, 9, 28}), norm_of)


def norm_from_state(run: Run, step: int) -> float:
    return math.sqrt(math.fsum(float(w.double().square().sum()) for w in run.weights(step).values()))


def test_observers_see_their_steps_and_leave_the_bits_alone(tmp_path: Path) -> None:
    plain = execute(Setting(spec(), Execution(store=tmp_path / "plain")))
    seen = train(spec(), store=tmp_path / "seen", observers=[NORM])
    assert seen.result["states"] == plain.result["states"]
    found = seen.observations("norm at 0, 9, 28")
    assert found["step"].to_list() == [0, 9, 28]
    assert found["norm"].to_list() == pytest.approx([norm_from_state(seen, step) for step in (0, 9, 28)], rel=1e-12)
    with pytest.raises(KeyError, match=r'no observations "loss"; it holds: norm at 0, 9, 28'):
        seen.observations("loss")


def test_a_finished_run_is_replayed_for_a_new_observer_once(tmp_path: Path) -> None:
    live = train(spec(), store=tmp_path / "live", observers=[NORM])
    train(spec(), store=tmp_path / "later")
    later = train(spec(), store=tmp_path / "later", observers=[NORM])
    assert later.observations(NORM.name).equals(live.observations(NORM.name))
    before, setting = files(tmp_path / "later"), Setting(spec(), Execution(store=tmp_path / "later"))
    assert execute(setting, observers=[NORM]).result == later.result
    assert files(tmp_path / "later") == before
    assert "examples" not in vars(setting)


@pytest.mark.parametrize("observed_before", [True, False])
def test_an_interrupted_run_is_observed_from_its_beginning(tmp_path: Path, observed_before: bool) -> None:
    straight = train(spec(), store=tmp_path / "straight", observers=[NORM])
    execution, calls = Execution(store=tmp_path / "broken"), iter(range(100))
    with pytest.raises(Interrupted, match="its checkpoint is kept"):
        execute(Setting(spec(), execution), frozenset(), lambda: next(calls) >= 2, [NORM] if observed_before else [])
    resumed = execute(Setting(spec(), execution), observers=[NORM])
    assert resumed.observations(NORM.name).equals(straight.observations(NORM.name))
    assert resumed.result["states"] == straight.result["states"]


@pytest.mark.parametrize("finished_before", [True, False])
def test_an_observer_that_changes_the_model_is_refused(tmp_path: Path, finished_before: bool) -> None:
    def spoil(moment: Moment) -> dict[str, float]:
        next(moment.model.parameters()).data.zero_()
        return {}

    if finished_before:
        train(spec(), store=tmp_path)
    with pytest.raises(RuntimeError, match='observer "spoil" changed the run'):
        train(spec(), store=tmp_path, observers=[Observer("spoil", lambda timetable: frozenset({7}), spoil)])
    assert Store(tmp_path).has(run_id(spec())) == finished_before


def test_observers_of_one_name_or_with_odd_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two observers have one name"):
        train(spec(), store=tmp_path, observers=[NORM, NORM])
    for numbers in ({"step": 1.0}, {"a": 1.0}, {"b": 1.0}):
        given = iter([{"b": 1.0}, {"b": 2.0}]) if numbers == {"b": 1.0} else iter([{"b": 1.0}, numbers])
        odd = Observer("odd", lambda timetable: frozenset({7, 14}), lambda moment, given=given: next(given))  # type: ignore[misc]
        if numbers == {"b": 1.0}:
            assert train(spec(), store=tmp_path, observers=[odd]).observations("odd")["b"].to_list() == [1.0, 2.0]
        else:
            with pytest.raises(RuntimeError, match='observer "odd" gave the numbers'):
                train(spec(), store=tmp_path, observers=[odd])


def test_an_observer_may_leave_another_mode(tmp_path: Path) -> None:
    def careless(moment: Moment) -> dict[str, float]:
        moment.model.eval()
        return {}

    every = Observer("careless", lambda timetable: frozenset(range(28)), careless)
    plain = train(spec(), store=tmp_path / "plain")
    assert train(spec(), store=tmp_path / "seen", observers=[every]).result["states"] == plain.result["states"]


def test_an_observer_of_the_same_name_at_other_steps_looks_again(tmp_path: Path) -> None:
    train(spec(), store=tmp_path, observers=[NORM])
    other = train(spec(), store=tmp_path, observers=[Observer(NORM.name, lambda timetable: frozenset({3}), norm_of)])
    assert other.observations(NORM.name)["step"].to_list() == [3]


def test_where_a_diverged_run_ends_does_not_depend_on_what_is_saved_or_seen(tmp_path: Path) -> None:
    wild = spec(model=MLP(width=16), train=WILD)
    plain = train(wild, store=tmp_path / "plain")
    assert plain.result["steps"] % 7 == 0 and (plain.result["diverged_at"] or 0) < plain.result["steps"]
    saved = execute(Setting(wild, Execution(store=tmp_path / "saved")), frozenset({3, 5}), observers=[NORM])
    for name in ("steps", "diverged_at", "last_finite_loss", "curves", "status"):
        assert saved.result[name] == plain.result[name]
    final = str(plain.result["steps"])
    assert saved.result["states"][final] == plain.result["states"][final]
    assert plain.state(5).arrays().keys() == saved.state(5).arrays().keys()
