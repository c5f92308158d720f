"""The command line, end to end: a whole run, kill -9 and Ctrl-C in processes of their own, all else in this one."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from overparam.cli.app import app

SMALL = ["--set", "data.num_train=100", "--set", "data.num_test=100"]
SHORT = [*SMALL, "--seeds", "3", "--set", "train.epochs=2", "--set", "train.steps=20"]
RUN = ["run", "batch_size", *SHORT, "--workers", "1"]
LONG = [*SMALL, "--seeds", "1", "--set", "train.epochs=40", "--set", "train.steps=400"]


def overparam(*arguments: str, folder: Path) -> Result:
    """The command, typed in a folder. It may end by an exit only: what else is raised would show a traceback."""
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["overparam", *arguments])
        done = CliRunner().invoke(app, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert "Traceback" not in done.stderr
    return done


def start(*arguments: str, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "overparam.cli.app", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background shell ignores it
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    process = start(*RUN, folder=folder)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert "0 failed" in stdout
    assert stdout.splitlines()[-1] == "Report: runs/report/report.html"
    return folder


def test_run_ends_by_naming_the_report(finished: Path) -> None:
    record = json.loads((finished / "runs/report/report.json").read_text())
    assert len(record["studies"][0]["claims"]) == 6
    assert (finished / "runs/report/report.html").is_file()


def test_the_same_command_again_runs_nothing(finished: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (finished / "runs/runs").rglob("*")}
    page = (finished / "runs/report/report.html").read_bytes()
    again = overparam(*RUN, folder=finished)
    assert re.search(r"^0 runs done, \d+ cached, 0 failed", again.stdout, re.M)
    assert {p: p.stat().st_mtime_ns for p in (finished / "runs/runs").rglob("*")} == before
    assert (finished / "runs/report/report.html").read_bytes() == page


def test_other_verbs_read_the_same_store(finished: Path) -> None:
    assert re.fullmatch(r"batch_size \(smoke\): .*\d+ ok.*\n", overparam("status", folder=finished).stdout)
    assert "missing" not in overparam("status", folder=finished).stdout
    assert "missing" in overparam("status", "--seeds", "4", folder=finished).stdout
    plan = overparam("plan", "batch_size", *SHORT, folder=finished)
    assert "missing 0: about 0 core-seconds" in plan.stdout
    assert "Power of each claim" in plan.stdout
    for options in ([], ["batch_size", *SHORT]):  # what was last run, and the same by name
        report = overparam("report", *options, "--out", "elsewhere", folder=finished)
        page = (finished / "elsewhere/report.html").read_text()
        assert "Missing</th>" in page and "--set train.epochs=2 --set train.steps=20" in page, report.stderr
        assert "<dd>2</dd>" in page and "<dd>25</dd>" not in page
        assert "equal train loss: " in overparam("claims", *options, folder=finished).stdout
        exported = overparam("export", *options, "--out", "runs.csv", folder=finished)
        assert "rows: runs.csv" in exported.stdout
        assert pl.read_csv(finished / "runs.csv")["test_accuracy"].null_count() == 0
    assert "batch_size" in overparam("list", folder=finished).stdout
    assert "torch:" in overparam("doctor", folder=finished).stdout
    assert "digits" in overparam("data", "list", folder=finished).stdout


def test_planning_what_is_finished_loads_nothing_that_computes_or_draws(finished: Path) -> None:
    code = f"""
import sys
from typer.testing import CliRunner
from overparam.cli.app import app
done = CliRunner().invoke(app, {["plan", "batch_size", *SHORT]!r})
print("missing 0" in done.output, *(name in sys.modules for name in ("torch", "matplotlib", "polars")))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=finished, capture_output=True, text=True, check=False)
    assert done.stdout == "True False False False\n", done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "batchsize"], r'unknown study "batchsize"'),
        (["run", "--preset", "huge"], r'no preset "huge"'),
        (["run", "--preset", ""], r'no preset ""'),
        (["run", "--set", "train.epoch=5"], r"epoch.*epochs"),
        (["run", "--set", "train.epochs=-1", "--set", "model.widht=3"], r"(?s)widht.*epochs"),
        (["run", "--device", "tpu"], r'unknown device "tpu"'),
        (["run", "batch_size", "--on", "moon", *SHORT], r'unknown backend "moon"'),
        (["run", *SHORT], r"train.steps: no run uses it .study double_descent"),
        (["run", "--preset", "laptop", "--data-dir", "nowhere"], r'"cifar10" is not embedded'),
        (["plan", "batch_size", "--on", "moon", *SHORT], r'unknown backend "moon"'),
        (["run", "--set", "seed=3"], r"seed: the seeds of a study are its replicates"),
        (["run", "--config", "missing.yaml"], r"missing.yaml: no such file"),
        (["run", "--config", "."], r"\.: is a directory"),
        (["run", "--store", "a-file"], r"--store a-file is a file"),
        (["claims", "--store", "nowhere"], r"there are no runs in nowhere"),
        (["report", "--store", "empty"], r"no study was run in empty yet"),
        (["export", "--out", "runs.txt"], r"allowed endings: .csv, .parquet"),
    ],
)
def test_errors_are_sentences_with_exit_code_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "a-file").touch()
    (tmp_path / "empty").mkdir()
    done = overparam(*arguments, folder=tmp_path)
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: ") and re.search(message, done.stderr), done.stderr


def test_what_is_refused_is_not_remembered(finished: Path) -> None:
    before = (finished / "runs/request.json").read_text()
    for refused in (["--on", "moon", *SHORT], ["--preset", "laptop", "--data-dir", "nowhere"]):
        assert overparam("run", "batch_size", *refused, folder=finished).exit_code == 2
    assert (finished / "runs/request.json").read_text() == before


def test_fewer_seeds_are_noted(finished: Path) -> None:
    record = json.loads((finished / "runs/report/report.json").read_text())
    assert "3 seeds instead of the preset's 5." in record["studies"][0]["notes"]


FACTORY = """
import torch
from torch import nn

def build():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(torch.sin(torch.arange(p.numel(), dtype=torch.float32) * (i + 1)).reshape(p.shape))
    x = torch.cos(torch.arange(80, dtype=torch.float32)).reshape(20, 4)
    return model, (x, torch.arange(20) % 3)

def only():
    return build()[0]

def fails():
    raise RuntimeError("no GPU")

number = 3
"""


def test_a_model_of_ones_own_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "net", raising=False)
    (tmp_path / "project").mkdir()
    (tmp_path / "project/net.py").write_text(FACTORY)
    (tmp_path / "project/mine.py").write_text("from net import build\n")
    done = overparam("measure", "project/mine.py:build", "--out", "card.html", folder=tmp_path)
    assert done.exit_code == 0, done.stderr
    assert re.search(r"^lambda_max +[\d.]+", done.stdout, re.M) and "rescaled by 4" in done.stdout
    page = (tmp_path / "card.html").read_text()
    assert "lambda_max" in page and "relative flatness" in page


@pytest.mark.parametrize(
    ("reference", "extra", "message"),
    [
        ("mine.py", [], "write FILE.py:factory"),
        ("other.py:build", [], "there is no file other.py"),
        ("mine.py:nothing", [], 'has no function "nothing"'),
        ("mine.py:number", [], 'has no function "number"'),
        ("mine.py:only", [], "name some with --data"),
        ("mine.py:fails", [], "cannot call mine.py:fails, at mine.py:17: RuntimeError: no GPU"),
        ("mine.py:only", ["--data", "digits"], "inputs of shape (1000, 1, 8, 8) and targets of shape (1000,)"),
        ("mine.py:build", ["--weights", "none.safetensors"], "cannot be read as safetensors"),
        ("mine.py:build", ["--loss", "hinge"], 'unknown loss "hinge"'),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(tmp_path: Path, reference: str, extra: list[str], message: str) -> None:
    (tmp_path / "mine.py").write_text(FACTORY)
    done = overparam("measure", reference, *extra, folder=tmp_path)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())


def test_set_wins_over_a_file(finished: Path) -> None:
    (finished / "fields.yaml").write_text("train:\n  epochs: 9\n  steps: 20\ndata: {num_train: 100, num_test: 100}\n")
    same = overparam(
        "run", "batch_size", "--seeds", "3", "--config", "fields.yaml", "--set", "train.epochs=2", folder=finished
    )
    assert re.search(r"^0 runs done, \d+ cached", same.stdout, re.M), same.stderr


def wait_for_first_runs(process: "subprocess.Popen[str]", folder: Path) -> None:
    """Until a run is finished; a command that ended before was never interrupted."""
    deadline = time.monotonic() + 120
    while not list(folder.glob("runs/runs/*/*/result.json")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_ctrl_c_keeps_what_is_done_and_prints_the_resume_command(tmp_path: Path) -> None:
    process = start("run", "batch_size", *LONG, "--workers", "1", folder=tmp_path)
    wait_for_first_runs(process, tmp_path)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1] == f"  {shlex.join(['overparam', *process.args[3:]])}"  # type: ignore[index]
    assert list(tmp_path.glob("runs/runs/*/*/result.json"))


@pytest.mark.usefixtures("in_process")
def test_kill_minus_nine_loses_no_finished_run(tmp_path: Path) -> None:
    process = start("run", "batch_size", *LONG, "--workers", "1", folder=tmp_path)
    wait_for_first_runs(process, tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=120)
    done = {p.parent.name for p in tmp_path.glob("runs/runs/*/*/result.json")}
    assert done
    again = overparam("run", "batch_size", *LONG, "--workers", "1", folder=tmp_path)
    assert again.exit_code == 0, again.stderr
    counts = re.search(r"^(\d+) runs done, (\d+) cached, 0 failed", again.stdout, re.M)
    assert counts is not None
    assert int(counts[1]) > 0 and int(counts[2]) >= len(done)
