"""`overparam measure` on programs of the user's: each works as under `python FILE.py`, or fails in a sentence."""

import json
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from overparam.cli.app import app
from overparam.cli.user_model import PRIVATE

PROGRAM = """
from __future__ import annotations
from dataclasses import dataclass

import torch
from neighbour import broken, linear

@dataclass
class Settings:
    width: int

def data(n):
    return torch.cos(torch.arange(4.0 * n)).reshape(n, 4), torch.arange(n) % 3

def build():
    return linear(), data(20)

def seven():
    return linear(), data(7)

def batches():
    return linear(), [data(20), data(7)]

def only():
    return linear()

def wide(width, depth=3):
    return linear()

def triple():
    return linear(), "mse", data(20)

def nothing():
    linear()

def odd():
    raise ValueError("width 3 is odd")  # line 36

def neighbours():
    broken()

def leaves():
    raise SystemExit  # line 42

instance = linear()
"""

NEIGHBOUR = """
import torch
from torch import nn

def linear():
    model = nn.Linear(4, 3)
    with torch.no_grad():
        model.weight.copy_(torch.sin(torch.arange(12.0)).reshape(3, 4))
        model.bias.zero_()
    return model

def broken():
    raise RuntimeError("no [GPU]")  # line 12
"""


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's program in json.py, whose name a module has, in a folder of its own below the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "neighbour", raising=False)
    Path("mine").mkdir()
    Path("mine/json.py").write_text(PROGRAM.lstrip())
    Path("mine/neighbour.py").write_text(NEIGHBOUR.lstrip("\n"))
    Path("mine/unclosed.py").write_text("x = 1\ny = (2\n")
    Path("mine/absent.py").write_text("import neighbour\nimport lost\n")
    Path("mine/by_import.py").write_text("import unclosed\n")
    Path("mine/notes.txt").write_text("build\n")


def measure(command: str) -> Result:
    return CliRunner().invoke(app, ["measure", *command.split()])


@pytest.mark.parametrize(("factory", "code"), [("build", 0), ("nothing", 2)])
def test_a_file_has_its_neighbours_and_leaves_no_trace(factory: str, code: int) -> None:
    path = sys.path[:]
    done = measure(f"mine/json.py:{factory}")
    assert done.exit_code == code, done.stderr
    assert ("lambda_max" in done.stdout) == (code == 0)
    assert sys.path == path
    assert sys.modules["json"] is json and PRIVATE not in sys.modules


def test_examples_cut_the_data_of_the_factory() -> None:
    cut, seven, twenty = (measure(f"mine/json.py:{it}") for it in ("build --examples 7", "seven", "build"))
    assert cut.exit_code == 0, cut.stderr
    assert cut.stdout == seven.stdout != twenty.stdout


def test_a_small_named_data_set_is_taken_whole() -> None:
    """The default number of examples is the program's, so that a smaller set is no fault of the user's."""
    x, y = np.cos(np.arange(120.0)).reshape(30, 4), np.arange(30) % 3
    Path("data/tiny").mkdir(parents=True)
    np.savez("data/tiny/tiny.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    tiny = "mine/json.py:only --data tiny --data-dir data"
    whole, thirty, more = measure(tiny), measure(f"{tiny} --examples 30"), measure(f"{tiny} --examples 31")
    assert whole.exit_code == 0, whole.stderr
    assert whole.stdout == thirty.stdout
    assert more.exit_code == 2 and "num_train=31" in more.stderr
    assert whole.stderr == ""
    np.savez("data/tiny/tiny.npz", x_train=x, y_train=y + 1, x_test=x, y_test=y + 1)
    assert measure(tiny).stderr.startswith("tiny: The labels 1 … 3 of the files are counted from 0")


IN = "mine/json.py"
OWN = {
    "wide": f"{IN}:wide cannot be called without arguments: missing a required argument: 'width'; give it a default",
    "triple": f"{IN}:triple returned Linear, str, tuple; allowed: an nn.Module, or (nn.Module, (x, y))",
    "nothing": f"{IN}:nothing returned NoneType; allowed: an nn.Module, or (nn.Module, (x, y))",
    "instance": f'{IN} has no function "instance"; that is of type Linear',
    "odd": f"cannot call {IN}:odd, at {IN}:36: width 3 is odd",
    "neighbours": f"cannot call {IN}:neighbours, at mine/neighbour.py:12: RuntimeError: no [GPU]",
    "leaves": f"cannot call {IN}:leaves, at {IN}:42: SystemExit",
    "build --examples 21": f"--examples 21: {IN}:build brings 20; ask for at most that many",
    "batches --examples 3": f"--examples cuts a pair of tensors (x, y); {IN}:batches brings a list",
    "build --data-dir here": "--data-dir here is where --data finds a data set, but none is named; add --data NAME",
}


@pytest.mark.parametrize(("command", "message"), OWN.items())
def test_what_fails_is_a_sentence(command: str, message: str) -> None:
    done = measure(f"mine/json.py:{command}")
    assert (done.exit_code, done.stderr) == (2, f"error: {message}\n")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("unclosed.py", "cannot load mine/unclosed.py, at mine/unclosed.py:2: SyntaxError: '(' was never closed"),
        ("by_import.py", "cannot load mine/by_import.py, at mine/unclosed.py:2: SyntaxError: '(' was never closed"),
        ("absent.py", "cannot load mine/absent.py, at mine/absent.py:2: ModuleNotFoundError: No module named 'lost'"),
        ("notes.txt", "mine/notes.txt is not a Python file; its name must end in .py"),
    ],
)
def test_a_file_that_does_not_load_is_a_sentence(file: str, message: str) -> None:
    done = measure(f"mine/{file}:build")
    assert (done.exit_code, done.stderr) == (2, f"error: {message}\n")


def test_data_that_does_not_fit_is_said_with_its_shape_and_what_torch_said() -> None:
    done = measure("mine/json.py:only --data digits --examples 40")
    assert done.exit_code == 2, done.exception
    data = "inputs of shape (40, 1, 8, 8) and targets of shape (40,)"
    assert done.stderr.startswith(f"error: cannot measure mine/json.py:only on {data}: the model fails on inputs")
    assert "RuntimeError: mat1 and mat2 shapes cannot be multiplied" in done.stderr


def test_debug_shows_where_the_users_program_failed() -> None:
    done = measure("mine/json.py:neighbours --debug")
    shown = "".join(traceback.format_exception(done.exception))
    assert 'neighbour.py", line 12, in broken' in shown and "RuntimeError: no [GPU]" in shown
