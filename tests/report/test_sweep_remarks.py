"""What stands below the sweep figure: runs that were cut short, and what a logit axis cuts off."""

import math
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from matplotlib.figure import Figure

from overparam.report import tables
from overparam.report.figures.sweep import draw_panel, level_places, logit_limits
from overparam.report.figures.sweep_remarks import cut_off, remarks, unfinished
from overparam.report.render import render
from tests.report.made_up import result

HERE = (pl.col("arm") == "equal_epochs") & (pl.col("level") == "8")  # its run of seed 0 diverged


def stopped(censored: pl.Expr) -> pl.DataFrame:
    """The runs of a report with early stops, which were cut short where `censored` is true."""
    values = {"early_stop_step": 50.0 + pl.col("seed"), "early_stop_accuracy": pl.col("test_accuracy")}
    cut = pl.when(censored).then(1.0).otherwise(0.0)
    return result().frame.with_columns(**values, early_stop_censored=cut)


def rows_of(frame: pl.DataFrame) -> list[tables.Row]:
    return tables.cell_rows(result().study.designs["smoke"], frame)


def low(share: float, lower: float, upper: float) -> tables.Row:
    """A point of an arm at a level named after its accuracy."""
    row: tables.Row = {"arm": "a", "title": "A", "group": "nets", "level": f"{share:g}", "level_value": share}
    row |= {"test_accuracy": share, "test_accuracy_lower": lower, "test_accuracy_upper": upper}
    return row | {"gap": 0.1, "gap_lower": -9.0, "gap_upper": 9.0}


LOW = [low(0.98, 0.97, 0.995), low(0.97, 0.96, 0.98), low(0.975, 0.965, 0.985), low(0.4, 0.2, 0.6)]


def runs(*values: float, status: str = "ok") -> pl.DataFrame:
    there = [{"arm": "a", "status": status, "level": "0.4", "test_accuracy": value, "gap": 0.1} for value in values]
    return pl.DataFrame(there)


def test_points_with_runs_that_were_cut_short_are_named_with_their_number() -> None:
    frame = stopped(HERE & (pl.col("seed") < 3) | (pl.col("arm") == "linear_lr") & (pl.col("level") == "32"))
    rows = rows_of(frame)
    titles = {row["arm"]: row["title"] for row in rows}
    assert unfinished(rows, frame) == [
        f"{titles['equal_epochs']} at 8 (2 of 4 runs)",  # that of seed 0 is not drawn
        f"{titles['linear_lr']} at 32 (5 of 5 runs)",
    ]


def test_where_every_run_was_stopped_nothing_is_said() -> None:
    frame = stopped(pl.lit(False))
    assert remarks(rows_of(frame), frame) == []
    assert remarks(rows_of(result().frame), result().frame) == []
    assert remarks(rows_of(result(missing=True).frame), result(missing=True).frame) == []


def test_the_limits_are_those_that_are_drawn() -> None:
    axes = draw_panel(Figure().subplots(), LOW, runs(0.4), "test_accuracy", level_places(LOW))
    assert axes.get_ylim() == pytest.approx(logit_limits(LOW, "test_accuracy"))
    assert logit_limits(LOW, "gap") is None


def test_what_a_logit_axis_cuts_is_counted() -> None:
    """Its ends are at 30.3 and 98.7 %: two bars and one run lie beyond; a run that diverged is not drawn at all."""
    frame = pl.concat([runs(0.31, 0.29, 0.4), runs(0.1, status="diverged")])
    assert cut_off(LOW, frame) == ["1 run and 2 interval bars of “Test accuracy (%)”, nets"]
    inside = [*LOW[1:3], low(0.98, 0.97, 0.985), low(0.4, 0.35, 0.45)]
    assert cut_off(inside, runs(0.31, 0.4)) == []
    assert cut_off([*inside[:3], low(0.4, math.nan, math.nan)], runs(0.29)) == ["1 run of “Test accuracy (%)”, nets"]


def test_the_end_of_a_logit_scale_is_on_its_axis() -> None:
    """An accuracy of 100 % is drawn at 99.99, and so is a bar that reaches beyond."""
    whole = [low(1.0, 0.999, 1.001), low(0.9999, 0.999, 1.0), low(0.999, 0.998, 1.0), low(0.4, 0.35, 0.45)]
    assert cut_off(whole, runs(1.0, 0.4)) == []


def test_the_page_says_both_below_the_figure_and_what_its_means_are_over(tmp_path: Path) -> None:
    short = pl.when(HERE & (pl.col("seed") == 0)).then(10.0).otherwise(pl.col("steps"))
    accuracy = pl.when(HERE).then(pl.when(pl.col("seed") == 4).then(0.01).otherwise(0.3))
    low_ones = accuracy.otherwise(pl.col("test_accuracy"))
    frame = stopped(HERE & (pl.col("seed") == 4)).with_columns(
        steps=short, test_accuracy=low_ones, early_stop_accuracy=low_ones
    )
    page = render([replace(result(), frame=frame)], tmp_path).read_text()
    caption = page.split("<figcaption>")[1].split("</figcaption>")[0]
    assert " at 8 (1 of 4 runs).</p>" in caption and "a lower bound for the step and an unfinished accuracy" in caption
    panels = "“Test accuracy (%)”", "“Test accuracy when stopped early (%)”"
    assert "; ".join(f"1 run and 1 interval bar of {panel}" for panel in panels) in caption
    assert ">82</td>" in page, "the mean of 10 and four times 100 steps"
    assert "those under “All runs” and “Steps”, and of epochs in the data, are over all runs" in page
