"""The command line, in this process: what its end-to-end tests cannot bring about."""

import pytest
from typer.testing import CliRunner

from overparam.cli.app import app
from overparam.data import sources
from overparam.data.types import DataError


def test_listing_data_that_cannot_be_read_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(data_dir: object) -> None:
        raise DataError("the folder is damaged")

    monkeypatch.setattr(sources, "available", refuse)
    assert CliRunner().invoke(app, ["data", "list"]).exit_code == 2
    assert isinstance(CliRunner().invoke(app, ["data", "list", "--debug"]).exception, DataError)
