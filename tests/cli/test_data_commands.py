"""`overparam data add` and `data list`: what was made of the files is said, and what they leave open is asked for."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from overparam.cli.app import app

X, Y = np.zeros((6, 8, 8, 13), dtype=np.uint8), np.arange(6) % 2


@pytest.fixture(autouse=True)
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, x, y in (("open", X, Y), ("noted", X[..., :1], Y + 1)):
        Path("from", name).mkdir(parents=True)
        np.savez(f"from/{name}/data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    Path("data").mkdir()


def data(command: str) -> Result:
    return CliRunner().invoke(app, ["data", *command.split(), "--data-dir", "data"])


NOTE = "  The labels 1 … 2 of the files are counted from 0, so that each is less by one."


def test_what_was_made_of_the_files_is_said_when_they_are_added_and_listed() -> None:
    added = data("add mine --from from/noted")
    assert (added.exit_code, added.stdout.splitlines()[1:]) == (0, [NOTE]), added.stderr
    (listed,) = [line for line in data("list").stdout.splitlines() if line.startswith("mine · .npz")]
    assert data("list").stdout.splitlines()[-2:] == [listed, NOTE]


def test_what_the_files_leave_open_is_asked_for() -> None:
    asked = data("add mine --from from/open")
    assert asked.exit_code == 2 and "say which, with --channels first or last of `overparam data add`" in asked.stderr
    assert data("add mine --from from/open --channels last").exit_code == 0
    wrong = data("add other --from from/open --channels middle")
    assert wrong.stderr.startswith('error: channels="middle" is unknown; allowed: first for (N, C, H, W), last for')


def test_a_data_set_that_cannot_be_read_is_listed_with_the_reason() -> None:
    """It does not hide the others."""
    Path("data/bad").mkdir()
    for name in ("data_batch_1", "test_batch"):
        Path("data/bad", name).write_bytes(b"")
    data("add mine --from from/noted")
    listed = data("list")
    assert listed.exit_code == 0
    lines = listed.stdout.splitlines()
    assert lines[2].startswith("bad · cannot be read · ") and "Python version of CIFAR-10" in lines[2]
    assert lines[3].startswith("mine · .npz")
