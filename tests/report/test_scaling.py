"""The scaling figure: power laws that are put in come out, in the panels, in the tables and in the files."""

import csv
import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes

from overparam.claims.estimand import Slope
from overparam.claims.intervals import t_interval
from overparam.claims.sample import sample
from overparam.foundations.numpy_generators import numpy_generator
from overparam.report.figures.drawing import Drawing, Material, geometric
from overparam.report.figures.exponents import exponent_written, scaling_of
from overparam.report.figures.scaling import scaling, scalings
from overparam.report.figures.svg import to_svg
from overparam.report.render import StudyResult, render
from overparam.studies.batch_size import BATCH_SIZE
from overparam.studies.loss_landscape import LOSS_LANDSCAPE
from overparam.studies.study import Panel
from tests.report.material import DESIGN, FACTOR, everything

LEVELS = [8.0, 32.0, 128.0, 1297.0]
FALLING = Panel(arm="equal_epochs", metric="lambda_max", title="Top eigenvalue", reference=-0.5)
LOSS = Panel(arm="linear_lr", metric="test_loss", title="Test loss")
TRACE = Panel(arm="equal_epochs", metric="trace", title="Trace")
PANELS = (FALLING, LOSS, TRACE)
SCALED = DESIGN.model_copy(update={"panels": PANELS})


def test_a_single_level_has_room_on_its_axis() -> None:
    runs = table().filter(pl.col("level") == "8")
    material = Material(FACTOR, SCALED, runs, ())
    drawing = scaling(material, scalings(material))
    assert drawing is not None
    to_svg(drawing.figure)
    low, high = drawing.figure.axes[0].get_xlim()
    assert low < 4.0 and high > 16.0


def table() -> pl.DataFrame:
    """λmax ∝ level^(−½) and test loss ∝ level^¼ up to noise of 5 % in each run; the trace was not measured."""
    frame, _ = everything()
    noise = [np.exp(0.05 * numpy_generator(i, "scaling").normal(size=len(frame))) for i in range(2)]
    level = pl.col("level_value").fill_null(1.0)
    laws = {"lambda_max": 3.0 * level**-0.5 * noise[0], "test_loss": 0.2 * level**0.25 * noise[1]}
    return frame.with_columns(**laws, trace=pl.lit(None, pl.Float64))


def drawn(frame: pl.DataFrame) -> Drawing:
    material = Material(FACTOR, SCALED, frame, ())
    drawing = scaling(material, scalings(material))
    assert drawing is not None
    return drawing


@cache
def panels_of_figure() -> list[Axes]:
    return drawn(table()).figure.axes


def key(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


@cache
def result() -> StudyResult:
    study = LOSS_LANDSCAPE.model_copy(update={"designs": {"smoke": SCALED}})
    return StudyResult(study, "smoke", table(), (), "overparam run")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render([result()], tmp_path_factory.mktemp("scaling")).parent


def test_exponents_in_the_key_are_those_of_a_claim() -> None:
    epochs, _, rate, _ = panels_of_figure()
    for axes, panel in ((epochs, FALLING), (rate, LOSS)):
        slope = Slope(metric=panel.metric, arm=panel.arm, scale="log")
        found = t_interval(sample(table(), slope, ok_only=True).values)
        assert key(axes)[0] == f"b = {exponent_written(found)}, n = 5"
        assert found.lower < {"lambda_max": -0.5, "test_loss": 0.25}[panel.metric] < found.upper


def test_seeds_are_thin_lines_and_means_are_geometric() -> None:
    axes = panels_of_figure()[0]
    mine = table().filter((pl.col("arm") == "equal_epochs") & pl.col("level_value").is_not_null())
    thin = [line for line in axes.lines if line.get_linewidth() == 0.6]
    assert len(thin) == 5
    first = mine.filter(pl.col("seed") == 0).sort("level_value")["lambda_max"]
    assert np.asarray(thin[0].get_ydata()) == pytest.approx(first.to_numpy())
    found = scaling_of(table(), FALLING)
    assert list(found.levels) == LEVELS and found.counts == [5] * 4
    for level, mean in zip(LEVELS, found.means, strict=True):
        assert mean == pytest.approx(geometric(mine.filter(pl.col("level_value") == level)["lambda_max"].to_list()))
    assert axes.get_xscale() == axes.get_yscale() == "log" and axes.get_xlabel() == FACTOR


def test_the_reference_has_its_exponent_and_goes_through_the_middle() -> None:
    epochs, _, rate, _ = panels_of_figure()
    (line,) = [each for each in epochs.lines if each.get_linestyle() == "--"]
    x, y = (np.log(np.asarray(values, dtype=np.float64)) for values in line.get_data())
    assert np.diff(y) / np.diff(x) == pytest.approx([-0.5] * 3)
    assert y.mean() == pytest.approx(np.mean([math.log(mean) for mean, _, _ in scaling_of(table(), FALLING).means]))
    assert key(epochs)[1] == "b = −0.5, for reference"
    assert len(key(rate)) == 1 and not [each for each in rate.lines if each.get_linestyle() == "--"]


@pytest.mark.parametrize("column", [True, False])
def test_a_metric_without_values_is_called_not_measured(column: bool) -> None:
    frame = table() if column else table().drop("trace")
    axes = drawn(frame).figure.axes[1]
    assert [text.get_text() for text in axes.texts] == ["not measured"]
    assert axes.get_title(loc="left") == "Trace" and key(axes) == []


def test_each_arm_begins_a_row() -> None:
    axes = panels_of_figure()
    titles = {arm.name: arm.title for arm in DESIGN.arms}
    found = [each.get_ylabel().replace("\n", " ") for each in (axes[0], axes[2])]
    assert found == [titles["equal_epochs"], titles["linear_lr"]]
    assert sum(not each.axison for each in axes) == 1


def test_what_is_left_out_is_counted() -> None:
    """A diverged run counts once though two panels show its arm; a value of 0 has no logarithm."""
    here, seed = pl.col("arm") == "equal_epochs", pl.col("seed")
    first = here & (pl.col("level") == "8")
    frame = table().with_columns(
        status=pl.when(first & (seed == 0)).then(pl.lit("diverged")).otherwise(pl.col("status")),
        lambda_max=pl.when(first & (seed == 1)).then(0.0).otherwise(pl.col("lambda_max")),
    )
    drawing = drawn(frame)
    assert "n = 3 to 5 seeds. " in drawing.caption and DESIGN.caption in drawing.caption
    probed = [c for c in SCALED.cells() if any("trace" in probe.columns for probe in SCALED.probes_of(c))]
    traces = sum(c.arm == "equal_epochs" and not isinstance(c.level, str) for c in probed) - 1
    assert f"Runs left out: 1 diverged. Values left out: {traces} not measured, 1 not positive." in drawing.caption
    found = scaling_of(frame, FALLING)
    assert found.counts == [3, 5, 5, 5] and found.exponent.n == 3
    assert math.isnan(found.values[1][0])


def test_levels_that_are_names_are_skipped_and_named() -> None:
    named = [level.value for arm in DESIGN.arms for level in arm.levels if isinstance(level.value, str)]
    arm = next(arm.name for arm in DESIGN.arms if any(isinstance(level.value, str) for level in arm.levels))
    design = DESIGN.model_copy(update={"panels": (Panel(arm=arm, metric="test_loss", title="Test loss"),)})
    material = Material(FACTOR, design, table(), ())
    drawing = scaling(material, scalings(material))
    assert drawing is not None and "not positive numbers are not drawn: " in drawing.caption
    assert any(name in drawing.caption for name in named)


def test_one_level_or_one_seed_is_no_interval() -> None:
    one = drawn(table().filter(pl.col("level").is_in(["8", "adam-32"])))
    assert key(one.figure.axes[0]) == ["one level has no exponent"]
    alone = drawn(table().filter(pl.col("seed") == 0))
    assert key(alone.figure.axes[0])[0].endswith(", n = 1") and "[" not in key(alone.figure.axes[0])[0]
    apart = table().filter((pl.col("level") == "8") == (pl.col("seed") == 0))
    assert key(drawn(apart).figure.axes[0])[0] == "no seed has every level"
    assert "nan" not in to_svg(drawn(apart).figure)


def test_page_tables_and_files_have_the_same_exponents(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "loss_landscape_scaling" in page and (folder / "figures" / "loss_landscape_scaling.svg").is_file()
    with open(folder / "data" / "loss_landscape_scaling.csv") as stream:
        rows = list(csv.DictReader(stream))
    records = json.loads((folder / "report.json").read_text())["studies"][0]["scaling"]
    assert [len(each["levels"]) for each in records] == [4, 4, 0]
    assert [(each["arm"], each["metric"]) for each in records] == [(panel.arm, panel.metric) for panel in PANELS]
    for panel, record in zip(PANELS[:2], records, strict=False):
        found = scaling_of(table(), panel)
        assert f"{exponent_written(found.exponent)} <span" in page
        assert record["exponent"]["estimate"] == pytest.approx(found.exponent.estimate)
        mine = [row for row in rows if row["metric"] == panel.metric]
        assert [float(row["mean"]) for row in mine] == pytest.approx([mean for mean, _, _ in found.means])
        assert float(mine[0]["exponent_lower"]) == pytest.approx(found.exponent.lower)
        assert all(f">{mean:.4g} [{low:.4g}, {high:.4g}]</td>" in page for mean, low, high in found.means)


def test_the_same_runs_give_the_same_figure() -> None:
    assert to_svg(drawn(table()).figure) == to_svg(drawn(table()).figure)
    assert "mathdefault" not in to_svg(drawn(table()).figure)


def test_without_panels_there_is_no_figure(tmp_path: Path) -> None:
    render([replace(result(), study=BATCH_SIZE, verdicts=(), readings=())], tmp_path)
    assert not list(tmp_path.rglob("*scaling*"))


def test_without_values_the_page_still_says_what_it_would_show(tmp_path: Path) -> None:
    study = LOSS_LANDSCAPE.model_copy(update={"designs": {"smoke": SCALED.model_copy(update={"panels": (TRACE,)})}})
    page = render([replace(result(), study=study)], tmp_path).read_text()
    assert "n = 0 seeds" in page and (tmp_path / "data" / "loss_landscape_scaling.csv").is_file()


def test_what_people_write_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> $\\frac{"
    panels = tuple(panel.model_copy(update={"title": evil}) for panel in PANELS)
    study = LOSS_LANDSCAPE.model_copy(update={"designs": {"smoke": SCALED.model_copy(update={"panels": panels})}})
    page = render([replace(result(), study=study)], tmp_path).read_text()
    assert "<script" not in page and page.count("&lt;script&gt;alert(1)") >= 3
    assert page.count("<table>") == page.count("</table>") and page.count("<figure>") == page.count("</figure>")
