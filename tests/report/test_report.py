"""The page, its numbers and its files."""

import csv
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.container import ErrorbarContainer

from overparam.analyse.claims import judge
from overparam.report import numbers, tables
from overparam.report.figures import level_places, sweep_figure
from overparam.report.render import StudyResult, render
from overparam.rng.numpy_generators import numpy_generator
from overparam.specs import Design, Study
from overparam.studies import STUDIES

EVIL = '<script>alert("x")</script> & co'


def smoke(background: str = "b") -> tuple[Study, Design]:
    study = STUDIES["batch_size"].model_copy(update={"background": background})
    return study, study.designs["smoke"]


def made_up(design: Design, missing: bool = False) -> pl.DataFrame:
    """A table of runs with known numbers: one diverged run and one without any value."""
    rows = []
    generator = numpy_generator(0, "report")
    for cell in design.cells():
        accuracy = 0.9 + 0.02 * float(generator.random())
        rows.append(
            {
                "arm": cell.arm,
                "level": cell.level if isinstance(cell.level, str) else format(cell.level, "g"),
                "level_value": None if isinstance(cell.level, str) else float(cell.level),
                "seed": cell.seed,
                "lr": cell.spec.train.optimizer.lr,
                "run_id": "0" * 32,
                "status": "missing" if missing else "ok",
                "train_loss": None if missing else 0.1,
                "train_accuracy": None if missing else 0.99,
                "test_loss": None if missing else 0.3,
                "test_accuracy": None if missing else accuracy,
                "gap": None if missing else 0.99 - accuracy,
                "steps": None if missing else 100,
                "epochs": None if missing else 10.0,
                "seconds": None if missing else 1.0,
                "num_train": None if missing else 1297,
                "num_test": None if missing else 500,
                "environment": None,
            }
        )
    if not missing:
        rows[0] |= {"status": "diverged", "train_loss": None, "test_loss": None}
    return pl.DataFrame(rows, infer_schema_length=None)


def result(missing: bool = False, background: str = "b") -> StudyResult:
    study, design = smoke(background)
    frame = made_up(design, missing).with_columns(
        *(pl.col(c).cast(pl.Float64) for c in ("test_accuracy", "train_accuracy", "gap", "train_loss", "test_loss")),
        *(pl.col(c).cast(pl.Float64) for c in ("steps", "epochs")),
    )
    verdicts = judge(frame, design.claims, generator=numpy_generator(0, "t"))
    return StudyResult(study, "smoke", frame, verdicts, {"torch": "2"}, "overparam run", ("a note",))


class Outline(HTMLParser):
    """Open tags must close, and nothing may be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "path", "use", "rect", "link"):
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag


def test_page_is_well_formed_and_fetches_nothing(tmp_path: Path) -> None:
    page = render([result()], tmp_path).read_text()
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert not [link for link in outline.links if re.match(r"\w+:|//", link)]
    for link in outline.links:
        assert link.startswith("#") or (tmp_path / link).is_file()


def test_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        render([result()], tmp_path / name)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 8
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_what_people_write_is_escaped(tmp_path: Path) -> None:
    page = render([result(background=EVIL)], tmp_path).read_text()
    assert EVIL not in page
    assert "&lt;script&gt;alert" in page


def test_json_holds_every_claim_without_nan(tmp_path: Path) -> None:
    render([result()], tmp_path)
    record = json.loads((tmp_path / "report.json").read_text())
    _, design = smoke()
    claims = record["studies"][0]["claims"]
    assert [claim["sentence"] for claim in claims] == [claim.sentence for claim in design.claims]
    assert {"verdict", "estimate", "lower", "upper", "n", "p", "p_holm", "paper_value", "margin"} <= claims[0].keys()
    assert "NaN" not in (tmp_path / "report.json").read_text()


def test_csv_holds_the_numbers_that_are_drawn(tmp_path: Path) -> None:
    found = result()
    render([found], tmp_path)
    with open(tmp_path / "data" / "batch_size_sweep.csv") as stream:
        rows = list(csv.DictReader(stream))
    records = tables.cell_rows(found.study.designs["smoke"], found.frame)
    axes = sweep_figure(records, found.frame, "batch size").axes[0]
    bars = [container for container in axes.containers if isinstance(container, ErrorbarContainer)]
    drawn = {round(float(y), 6) for bar in bars for y in np.atleast_1d(bar.lines[0].get_ydata())}
    assert drawn == {round(100 * float(row["test_accuracy"]), 6) for row in rows}


def test_failed_runs_are_counted_and_kept_out_of_the_primary_estimate(tmp_path: Path) -> None:
    found = result()
    row = tables.cell_rows(found.study.designs["smoke"], found.frame)[0]
    mine = found.frame.filter((pl.col("arm") == "equal_epochs") & (pl.col("level") == "8"))
    ok = mine.filter(pl.col("status") == "ok")["test_accuracy"]
    assert (row["n_ok"], row["n_all"], row["diverged"]) == (4, 5, 1)
    assert row["test_accuracy"] == pytest.approx(sum(ok) / 4)
    assert row["test_accuracy_all_runs"] == pytest.approx(sum(mine["test_accuracy"]) / 5)
    assert "1 of 5 runs diverged" in render([found], tmp_path).read_text()


def test_a_study_without_runs_says_so(tmp_path: Path) -> None:
    page = render([result(missing=True)], tmp_path).read_text()
    assert "No finished runs yet" in page
    assert not (tmp_path / "figures").exists()


def test_named_levels_stand_right_of_the_numbers() -> None:
    levels = {"8": 8.0, "full": None, "32": 32.0}
    rows: list[tables.Row] = [{"level": level, "level_value": value} for level, value in levels.items()]
    assert level_places(rows) == {"8": 3.0, "32": 5.0, "full": 6.5}


def test_numbers_are_written_for_people() -> None:
    assert numbers.percent(math.nan) == "–"
    assert numbers.points(0.0225) == "+2.25"
    assert [numbers.p_value(p) for p in (1.0, 0.5, 0.0004)] == ["1", ".500", "< .001"]


def test_latex_is_escaped() -> None:
    text = tables.latex(["a_b", "50 %"], [["x & y", "−1"]])
    assert r"a\_b & 50 \%" in text
    assert r"x \& y & $-$1 \\" in text
