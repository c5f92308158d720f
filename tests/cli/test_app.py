"""The command line, in this process: what its end-to-end tests cannot bring about."""

import inspect
import re

import pytest
from typer.testing import CliRunner

from overparam.cli.app import COMMANDS, app
from overparam.cli.options import Asked, Stored, flat
from overparam.data import sources
from overparam.data.types import DataError


def test_listing_data_that_cannot_be_read_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(data_dir: object) -> None:
        raise DataError("the folder is damaged")

    monkeypatch.setattr(sources, "available", refuse)
    assert CliRunner().invoke(app, ["data", "list"]).exit_code == 2
    assert isinstance(CliRunner().invoke(app, ["data", "list", "--debug"]).exception, DataError)


OF_STORED = ["--preset", "--set", "--config", "--seeds", "--store", "--data-dir"]
OF_ASKED = [*OF_STORED[:-1], "--workers", "--on", "--device", "--data-dir", "--allow-mixed"]
OPTIONS = {
    "run": [*OF_ASKED, "--debug"],
    "plan": [*OF_ASKED, "--debug"],
    "status": [*OF_STORED, "--debug"],
    "report": [*OF_STORED, "--out", "--debug"],
    "claims": [*OF_STORED, "--debug"],
    "export": [*OF_STORED, "--out", "--debug"],
    "measure": ["--weights", "--data", "--examples", "--loss", "--out", "--data-dir", "--debug"],
    "list": [],
    "doctor": [],
    "selftest": [],
    "data list": ["--data-dir", "--debug"],
    "data add": ["--from", "--channels", "--labels", "--data-dir", "--debug"],
}


def help_of(*words: str) -> str:
    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert shown.exit_code == 0
    return shown.output


@pytest.mark.parametrize("command", OPTIONS)
def test_help_lists_every_option_once_and_in_order(command: str) -> None:
    assert re.findall(r"^│ +\*? *(--[a-z-]+)", help_of(*command.split()), re.M) == [*OPTIONS[command], "--help"]


def test_help_lists_every_command_once_and_in_order() -> None:
    assert re.findall(r"^│ ([a-z]+) ", help_of(), re.M) == [*COMMANDS, "data"]
    assert {name.split()[0] for name in OPTIONS} == {*COMMANDS, "data"}


def test_what_is_read_and_what_is_computed_have_defaults_of_their_own() -> None:
    assert "[default: smoke]" in help_of("plan") and "Studies; none means all." in help_of("plan")
    assert "Default: as last run in the store." in help_of("status") and "last run in the store." in help_of("status")


def test_a_group_of_options_is_handed_over_as_one() -> None:
    seen: list[object] = []

    def command(stored: Stored, debug: bool = False) -> None:
        seen.extend([stored, debug])

    parameters = inspect.signature(flat(command)).parameters
    assert list(parameters)[-2:] == ["data_dir", "debug"] and parameters["preset"].default is None
    flat(command)(**{name: each.default for name, each in parameters.items()} | {"seeds": 3})
    assert seen == [Stored(seeds=3), False] and Asked().preset == "smoke"
