"""The table of docs/audit.md: it is what the published values give, and it names claims that there are."""

import csv
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from overparam.foundations.torch_generators import torch_generator
from overparam.models.build import build
from overparam.specs.models.mlp import MLP

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(DOCS / "results"))
    return importlib.import_module("audit_table")


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(DOCS / "results"))
    return importlib.import_module("paper_values")


def test_the_committed_table_is_what_the_values_give(audit: Any) -> None:
    audit.main(["--check"])


def changed(folder: Path, old: str, new: str) -> Path:
    text = (DOCS / "paper_values.csv").read_text()
    assert text.count(old) == 1
    file = folder / "paper_values.csv"
    file.write_text(text.replace(old, new))
    return file


def test_another_value_makes_another_table_and_fails_the_check(
    audit: Any, values: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = changed(tmp_path, "2.23823", "2.33823")
    monkeypatch.setattr(audit, "Paper", lambda: values.Paper(file))
    with pytest.raises(SystemExit, match="audit.md is not what its values give"):
        audit.main(["--check"])
    page = tmp_path / "audit.md"
    page.write_text((DOCS / "audit.md").read_text())
    monkeypatch.setattr(audit, "PAGE", page)
    audit.main([])
    assert "12.10" in page.read_text()
    audit.main(["--check"])


def test_a_sentence_that_the_values_no_longer_bear_is_refused(audit: Any, values: Any, tmp_path: Path) -> None:
    """Words are typed; else the table would go on saying "yes" beside a number that says no."""
    paper = values.Paper(changed(tmp_path, "85.47,.15", "80.47,.15"))
    with pytest.raises(SystemExit, match="not true that Adam and SGD do not differ"):
        audit.written((DOCS / "audit.md").read_text(), paper, audit.Verdicts())


def test_a_value_that_is_missing_is_named(values: Any) -> None:
    with pytest.raises(SystemExit, match='no quantity "test accuracy" of E9'):
        values.Paper().number("E9", "test accuracy")


def test_a_claim_that_no_study_has_is_refused(audit: Any) -> None:
    rows = importlib.import_module("audit_rows")
    with pytest.raises(SystemExit, match='verdicts of batch_size have no claim "small beats all"'):
        audit.Verdicts().found(rows.Answer("batch_size", "small beats all"))


def test_every_value_stands_once_with_its_place(values: Any) -> None:
    with (DOCS / "paper_values.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({(row["claim"], row["quantity"]) for row in rows}) == len(rows)
    assert all(row["source"] for row in rows)


def test_intervals_are_those_of_welch(values: Any) -> None:
    """Against SciPy on samples that have these means and spreads."""
    a, b = np.array([1.0, 2.0, 4.0]), np.array([0.0, 1.0])
    one, other = (values.Value(float(x.mean()), float(x.std(ddof=1)), len(x)) for x in (a, b))
    found, known = values.difference(one, other), stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (found.lower, found.upper) == pytest.approx((known.low, known.high))


def test_the_initial_norm_is_that_of_the_network(values: Any) -> None:
    model = build(MLP(width=128), (1, 28, 28), 10, generator=torch_generator(0, "init"))
    norm = sum(float(each.detach().square().sum()) for each in model.parameters()) ** 0.5
    assert values.initial_norm(128) == pytest.approx(norm, rel=0.02)
