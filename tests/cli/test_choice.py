"""What a report says was run, and from which store."""

from pathlib import Path

import pytest

from overparam.cli.choice import Chosen, remembered
from overparam.cli.options import Stored
from overparam.lab.request import Request, python_call, without_store


def last(store: Path, preset: str | None = None) -> Chosen:
    return remembered(Stored(preset=preset, store=store))


@pytest.mark.parametrize("option", ["--store /machine/runs", "--store=/machine/runs"])
def test_a_report_does_not_say_where_the_runs_lie(tmp_path: Path, option: str) -> None:
    command = f"overparam run ntk_regime {option} --set 'data.num_train=9'"
    Request(studies=("ntk_regime",), overrides=("data.num_train=9",), command=command).save(tmp_path)
    assert last(tmp_path).results.command == "overparam run ntk_regime --set data.num_train=9"
    assert last(tmp_path, "laptop").results.command == "overparam run ntk_regime --preset laptop"
    assert Request.load(tmp_path).command == command


def test_a_call_of_python_is_shown_as_it_was_written() -> None:
    command = python_call(["ntk_regime"], "smoke", ["data.num_train=9"])
    assert "overrides=['data.num_train=9']" in command and without_store(command) == command
