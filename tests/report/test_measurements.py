"""The numbers behind the figures of measurements, on the page and beside it."""

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer

from overparam.claims.verdict import judge
from overparam.foundations.numpy_generators import numpy_generator
from overparam.probes.measurement import Look
from overparam.report import tables
from overparam.report.figures.drawing import geometric
from overparam.report.readings import readings_json
from overparam.report.render import StudyResult, render
from overparam.studies.batch_size import BATCH_SIZE
from overparam.studies.loss_landscape import LOSS_LANDSCAPE
from tests.report.material import DESIGN, drawings, everything


@cache
def result() -> StudyResult:
    frame, readings = everything()
    verdicts = judge(frame, DESIGN.claims, generator=numpy_generator(0, "t"))
    study = LOSS_LANDSCAPE.model_copy(update={"theory": "least_squares"})  # its figure shows no measurements
    return StudyResult(study, "smoke", frame, verdicts, "overparam run", readings=tuple(readings))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render([result()], tmp_path_factory.mktemp("landscape")).parent


def test_every_reading_is_in_the_file_that_figures_link(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert page.count('href="data/loss_landscape_measurements.json"') == page.count(", measured on the first") == 5
    records = json.loads((folder / "data" / "loss_landscape_measurements.json").read_text())
    assert [(r["arm"], r["level"], r["seed"], r["probe"]["kind"], r["rows"]) for r in records] == [
        (r.arm, r.level, r.seed, r.probe.model_dump()["kind"], [look.to_json() for look in r.looks])
        for r in result().readings
    ]


def test_what_figures_show_can_be_had_from_the_file(folder: Path) -> None:
    """The percents of one line of noise, and the outermost nodes of the spectra."""
    records = json.loads((folder / "data" / "loss_landscape_measurements.json").read_text())
    figures = {each.name: each.figure for each in drawings(*everything(), ["noise", "spectra"])}
    noise = [r for r in records if r["probe"]["kind"] == "noise" and r["probe"]["scale"] == "absolute"]
    ends = [r["rows"][-1] for r in noise if (r["arm"], r["level"]) == ("linear_lr", "8")]
    percents = [100.0 * end["absolute_noise_0.05"] / end["loss"] for end in ends]
    bar = figures["noise"].axes[len(DESIGN.arms) + 1].containers[0]
    assert isinstance(bar, ErrorbarContainer) and bar.lines[0] is not None
    assert np.asarray(bar.lines[0].get_ydata())[-1] == pytest.approx(geometric(percents)[0])
    density = [r for r in records if r["probe"]["kind"] == "density"]
    assert len(figures["spectra"].axes[0].lines) == len(density) == 4


def test_the_file_has_no_nan_and_the_same_bytes_each_time() -> None:
    _, readings = everything()
    odd = replace(readings[0], looks=(Look(1, 1.0, 0.1, {"loss": float("nan"), "x": [float("inf"), 0.1]}),))
    assert json.loads(readings_json([odd]))[0]["rows"] == [
        {"step": 1, "epoch": 1.0, "lr": 0.1, "loss": None, "x": [None, 0.1]}
    ]
    assert readings_json(readings) == readings_json(everything()[1])
    assert len(readings_json(readings).splitlines()) == len(readings) + 2
    assert json.loads(readings_json([])) == []


def test_nothing_measured_leaves_no_file(tmp_path: Path) -> None:
    frame = result().frame.drop("lambda_max")
    render([replace(result(), study=BATCH_SIZE, frame=frame, verdicts=(), readings=())], tmp_path)
    assert not list(tmp_path.rglob("*measurements*"))


def test_between_two_levels_the_page_gives_no_correlation(folder: Path) -> None:
    """Two levels at equal loss, four at equal epochs."""
    page = (folder / "report.html").read_text()
    table = page[page.index("Sharpness and the gap") :].split("</table>")[0]
    titles = {arm.name: arm.title for arm in DESIGN.arms}
    parts = re.split('scope="rowgroup"', table)
    found = {name: part for part in parts[1:] for name, title in titles.items() if f">{title}<" in part}
    assert list(found) == ["equal_loss", "equal_epochs"]
    row = (
        '>lambda_max</th><td class="number">{runs}</td><td class="number">[^–]*?</td><td class="number">{between}</td>'
    )
    assert re.search(row.format(runs=10, between="–"), found["equal_loss"])
    assert re.search(row.format(runs=20, between=r"[^–]*?\[[^–]*?"), found["equal_epochs"])


def test_correlations_are_of_the_arms_that_claims_are_about() -> None:
    assert tables.claimed_arms(DESIGN) == ("equal_loss", "equal_epochs")
    assert tables.claimed_arms(DESIGN.model_copy(update={"claims": ()})) == ()
    measures = {each.measure for each in tables.correlated(DESIGN, result().frame)}
    assert "lambda_max" in measures and "lambda_min" not in measures
