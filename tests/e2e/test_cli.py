"""The real command line, end to end, in processes of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SMALL = ["--set", "data.num_train=100", "--set", "data.num_test=100", "--seeds", "3"]
SHORT = [*SMALL, "--set", "train.epochs=2"]


def overparam(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "overparam.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    done = overparam("run", "batch_size", *SHORT, folder=folder)
    assert done.returncode == 0, done.stderr
    assert "0 failed" in done.stdout
    return folder


def test_run_ends_by_naming_the_report(finished: Path) -> None:
    record = json.loads((finished / "runs/report/report.json").read_text())
    assert len(record["studies"][0]["claims"]) == 6
    assert (finished / "runs/report/report.html").is_file()


def test_the_same_command_again_runs_nothing(finished: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (finished / "runs/runs").rglob("*")}
    page = (finished / "runs/report/report.html").read_bytes()
    again = overparam("run", "batch_size", *SHORT, folder=finished)
    assert re.search(r"^0 runs done, \d+ cached, 0 failed", again.stdout, re.M)
    assert {p: p.stat().st_mtime_ns for p in (finished / "runs/runs").rglob("*")} == before
    assert (finished / "runs/report/report.html").read_bytes() == page


def test_other_verbs_read_the_same_store(finished: Path) -> None:
    status = overparam("status", "batch_size", "--seeds", "3", folder=finished)
    assert "missing" in status.stdout
    plan = overparam("plan", "batch_size", *SHORT, folder=finished)
    assert "missing 0: about 0 core-seconds" in plan.stdout
    assert "Power of each claim" in plan.stdout
    report = overparam("report", "batch_size", *SHORT, "--out", "elsewhere", folder=finished)
    assert (finished / "elsewhere/report.html").is_file(), report.stderr
    assert "verdict" in overparam("claims", "batch_size", *SHORT, folder=finished).stdout
    exported = overparam("export", "batch_size", "--seeds", "3", "--out", "runs.csv", folder=finished)
    assert "rows: runs.csv" in exported.stdout
    assert "batch_size" in overparam("list", folder=finished).stdout
    assert "torch:" in overparam("doctor", folder=finished).stdout
    assert "digits" in overparam("data", "list", folder=finished).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "batchsize"], r'unknown study "batchsize"'),
        (["run", "--preset", "huge"], r'no preset "huge"'),
        (["run", "--set", "train.epoch=5"], r"epoch.*epochs"),
        (["run", "--set", "train.epochs=-1", "--set", "model.widht=3"], r"(?s)widht.*epochs"),
        (["run", "--device", "tpu"], r'unknown device "tpu"'),
        (["run", "--on", "moon", *SHORT], r'unknown backend "moon"'),
        (["run", "--preset", "laptop", "--data-dir", "nowhere"], r'"cifar10" is not embedded'),
    ],
)
def test_errors_are_sentences_with_exit_code_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = overparam(*arguments, folder=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def start(folder: Path) -> "subprocess.Popen[str]":
    long = [*SMALL, "--set", "train.epochs=40", "--workers", "2"]
    command = [sys.executable, "-m", "overparam.cli", "run", "batch_size", *long]
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background shell ignores it
    )


def wait_for_first_runs(folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.glob("runs/runs/*/*/result.json")) and time.monotonic() < deadline:
        time.sleep(0.05)


def test_ctrl_c_keeps_what_is_done_and_prints_the_resume_command(tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_for_first_runs(tmp_path)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Resume with:" in stderr and "overparam run batch_size" in stderr
    assert list(tmp_path.glob("runs/runs/*/*/result.json"))


def test_kill_minus_nine_loses_no_finished_run(tmp_path: Path, finished: Path) -> None:
    process = start(tmp_path)
    wait_for_first_runs(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=120)
    done = {p.parent.name for p in tmp_path.glob("runs/runs/*/*/result.json")}
    assert done
    long = [*SMALL, "--set", "train.epochs=40"]
    again = overparam("run", "batch_size", *long, folder=tmp_path)
    assert again.returncode == 0, again.stderr
    cached = int(re.search(r"(\d+) cached", again.stdout.splitlines()[-2]).group(1))  # type: ignore[union-attr]
    assert cached >= len(done)
