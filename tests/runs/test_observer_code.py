"""Numbers of an observer belong to the code that made them: other code of the same name is refused."""

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from overparam.foundations import paths
from overparam.identity import digest_text, run_id
from overparam.runs.attempt import Interrupted
from overparam.runs.execute import execute, train
from overparam.runs.execution import Execution
from overparam.runs.setting import Setting
from overparam.runs.store import Store, StoreError
from overparam.runs.training.loop import Moment
from overparam.runs.training.observer import Observer
from overparam.runs.training.timetable import Timetable
from tests.support.small_runs import files, spec

Measure = Callable[[Moment], dict[str, float]]


def at_the_end(timetable: Timetable) -> frozenset[int]:
    return frozenset({timetable.total_steps})


def one(moment: Moment) -> dict[str, float]:
    return {"value": 1.0}


def two(moment: Moment) -> dict[str, float]:
    return {"value": 2.0}


def given(moment: Moment, value: float) -> dict[str, float]:
    return {"value": value}


def closed(value: float) -> Measure:
    return lambda moment: {"value": value}


def observer(measure: Measure, steps: Iterable[int] = (1, 28), code: str | None = None) -> Observer:
    return Observer("value", lambda timetable: frozenset(steps), measure, code=code)


def values(store: Path, looking: Observer) -> list[float]:
    found: list[float] = train(spec(), store=store, observers=[looking]).observations("value")["value"].to_list()
    return found


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (lambda: one, lambda: two),
        (lambda: lambda moment: {"value": 1.0}, lambda: lambda moment: {"value": 2.0}),
        (lambda: closed(1.0), lambda: closed(2.0)),
        (lambda: partial(given, value=1.0), lambda: partial(given, value=2.0)),
    ],
)
def test_an_old_name_with_other_code_is_refused(
    tmp_path: Path, make: Callable[[], Measure], other: Callable[[], Measure]
) -> None:
    assert values(tmp_path, observer(make())) == [1.0, 1.0]
    before = files(tmp_path)
    assert values(tmp_path, observer(make())) == [1.0, 1.0]
    for steps in ((1, 28), (3,)):
        with pytest.raises(StoreError, match='what observer "value" saw by code .*; give the observer a new name'):
            values(tmp_path, observer(other(), steps))
    assert files(tmp_path) == before
    renamed = Observer("another value", at_the_end, other())
    assert train(spec(), store=tmp_path, observers=[renamed]).observations("another value")["value"].to_list() == [2.0]


def test_the_code_that_a_replay_saw_by_is_kept_too(tmp_path: Path) -> None:
    train(spec(), store=tmp_path)
    values(tmp_path, observer(one))
    with pytest.raises(StoreError, match="give the observer a new name"):
        values(tmp_path, observer(two))


def test_code_of_ones_own_stands_for_the_measure(tmp_path: Path) -> None:
    """As the refusal says: numbers that are the same are kept by naming the code that made them."""
    made_by = observer(one).digest
    values(tmp_path, observer(one))
    assert values(tmp_path, observer(two, code=made_by)) == [1.0, 1.0]
    with pytest.raises(StoreError, match=f'pass code="{made_by}" to it'):
        values(tmp_path, observer(one, code="2"))


def test_a_measure_that_counts_in_its_closure_stays_the_same(tmp_path: Path) -> None:
    """The code is taken before the first look, so what the looks change does not matter."""
    looks = 0.0

    def count(moment: Moment) -> dict[str, float]:
        nonlocal looks
        looks += 1.0
        return {"value": looks}

    counting = observer(count)
    assert values(tmp_path, counting) == [1.0, 2.0]
    assert values(tmp_path, counting) == [1.0, 2.0]


def rewritten(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a sealed result as another version would have written it."""
    content = json.loads(file.read_text())["content"]
    change(content)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    file.write_text(json.dumps({"content": content, "digest": digest_text(text)}))


def test_numbers_kept_without_a_digest_are_read_as_they_are(tmp_path: Path) -> None:
    values(tmp_path, observer(one))
    result = paths.result_file(paths.run_dir(tmp_path, run_id(spec())))
    rewritten(result, lambda content: content.pop("observed_by"))
    before = files(tmp_path)
    assert values(tmp_path, observer(two)) == [1.0, 1.0]
    assert files(tmp_path) == before


def interrupted(store: Path, looking: Observer) -> Setting:
    calls, setting = iter(range(100)), Setting(spec(), Execution(store=store))
    with pytest.raises(Interrupted, match="its checkpoint is kept"):
        execute(setting, frozenset(), lambda: next(calls) >= 2, [looking])
    return setting


def test_a_checkpoint_is_not_gone_on_with_by_other_code(tmp_path: Path) -> None:
    setting = interrupted(tmp_path, observer(one))
    with pytest.raises(StoreError, match="give the observer a new name"):
        execute(setting, observers=[observer(two)])
    assert not Store(tmp_path).has(run_id(spec()))
    renamed = Observer("another value", at_the_end, two)
    assert execute(setting, observers=[renamed]).observations("another value")["value"].to_list() == [2.0]


def test_a_checkpoint_without_digests_is_gone_on_with(tmp_path: Path) -> None:
    setting, store, identity = interrupted(tmp_path, observer(one)), Store(tmp_path), run_id(spec())
    found = store.checkpoint(identity)
    assert found is not None
    arrays, meta = found
    store.save_checkpoint(identity, arrays, {name: value for name, value in meta.items() if name != "observed_by"})
    assert execute(setting, observers=[observer(two)]).observations("value")["value"].to_list() == [1.0, 2.0]
