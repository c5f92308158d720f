"""The checks that a user runs: they pass here, see what they are there for, and fail aloud."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from overparam.cli import selftest
from overparam.cli.app import app
from overparam.cli.selftest import CHECKS, Check
from overparam.measure.products import operators

EXACT = {name: (measure, allowed) for name, measure, allowed in CHECKS}


@pytest.mark.parametrize("name", EXACT)
def test_a_check_passes_and_leaves_no_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    measure, allowed = EXACT[name]
    assert Check(name, measure(), allowed).passed
    assert not list(tmp_path.iterdir())


def test_a_wrong_product_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = operators.CurvatureOperator.__call__

    def wrong(self: Any, vectors: torch.Tensor) -> torch.Tensor:
        return right(self, vectors) * (1.001 if self.dtype == torch.float32 else 1.0)

    monkeypatch.setattr(operators.CurvatureOperator, "__call__", wrong)
    measure, allowed = EXACT["Hessian eigenvalues in float32 against a dense float64 matrix, relative to ‖H‖"]
    assert measure() > allowed


@pytest.mark.parametrize(("error", "code", "word"), [(0.5, 0, "ok some law: 5.0e-01, allowed 1"), (2.0, 1, "failed")])
def test_the_command_says_what_failed(monkeypatch: pytest.MonkeyPatch, error: float, code: int, word: str) -> None:
    def checks() -> Iterator[Check]:
        yield Check("some law", error, 1.0)

    monkeypatch.setattr(selftest, "selftest", checks)
    found = CliRunner().invoke(app, ["selftest"])
    assert found.exit_code == code
    assert word in found.output
    assert ("checks that failed: 1" in found.output) == (code == 1)


@pytest.mark.parametrize("error", [float("nan"), float("inf")])
def test_no_number_is_no_pass(error: float) -> None:
    assert not Check("law", error, 1.0).passed
