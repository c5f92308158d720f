"""Figures are drawn once: what is taken over is what would be drawn, and nothing that does not match is taken over."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from matplotlib.figure import Figure

from overparam.claims.verdict import judge
from overparam.foundations.numpy_generators import numpy_generator
from overparam.foundations.paths import drawn_figures_file
from overparam.probes.reading import Reading
from overparam.probes.weight_noise import WeightNoise
from overparam.report.figures.cache import FigureCache, Shown
from overparam.report.figures.drawing import Drawing
from overparam.report.render import StudyResult, render
from overparam.studies.loss_landscape import LOSS_LANDSCAPE
from overparam.studies.study import Panel
from tests.report import made_up
from tests.report.material import DESIGN, everything

LONG_AGO = 10**9
FEW_ARMS = ("equal_epochs", "equal_loss", "cnn_equal_epochs")


def few() -> tuple[pl.DataFrame, list[Reading]]:
    """Runs and readings of three arms: all figures have fewer panels then."""
    table, readings = everything()
    return table.filter(pl.col("arm").is_in(FEW_ARMS)), [each for each in readings if each.arm in FEW_ARMS]


def measured(frame: pl.DataFrame | None = None, caption: str = DESIGN.caption) -> StudyResult:
    """A study with every kind of figure."""
    table, readings = few()
    table = table if frame is None else frame
    arms = tuple(arm for arm in DESIGN.arms if arm.name in FEW_ARMS)
    panels = (Panel(arm="equal_epochs", metric="lambda_max", title="Top eigenvalue"),)
    design = DESIGN.model_copy(update={"arms": arms, "panels": panels, "caption": caption})
    study = LOSS_LANDSCAPE.model_copy(update={"theory": "least_squares", "designs": {"smoke": design}})
    verdicts = judge(table, design.claims, generator=numpy_generator(0, "t"))
    return StudyResult(study, "smoke", table, verdicts, "overparam run", readings=tuple(readings))


def contents(folder: Path) -> dict[str, bytes]:
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render([measured()], tmp_path_factory.mktemp("before")).parent


@pytest.fixture
def folder(before: Path, tmp_path: Path) -> Path:
    """A report that was written long ago."""
    for name, content in contents(before).items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        os.utime(file, (LONG_AGO, LONG_AGO))
    return tmp_path


def written_now(folder: Path) -> set[str]:
    return {name for name in contents(folder) if (folder / name).stat().st_mtime > LONG_AGO}


def changed_figures(old: Path, new: Path) -> set[str]:
    """Names of the figures that were drawn from something else."""
    then, now = (json.loads(drawn_figures_file(each).read_text()) for each in (old, new))
    there = [name for name, record in now.items() if record["svg"] is not None]
    return {record["name"] for name in there if then[name]["key"] != (record := now[name])["key"]}


def test_all_figures_but_that_of_effects_are_in_the_report(before: Path) -> None:
    names = {file.stem.removeprefix("loss_landscape_") for file in (before / "figures").iterdir()}
    assert names == {"sweep", "scaling", "closed_form", "curvature", "noise", "spectra", "surfaces", "along"}


def test_a_second_report_writes_nothing(folder: Path, before: Path) -> None:
    render([measured()], folder)
    assert written_now(folder) == set()
    assert contents(folder) == contents(before)


def test_what_draws_is_loaded_for_drawing_only() -> None:
    code = "import sys, overparam.report.render; print('matplotlib.figure' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", ["loss_landscape_along.svg", "loss_landscape_along.png"])
def test_the_figure_of_a_damaged_file_is_drawn_again_and_no_other(folder: Path, before: Path, name: str) -> None:
    file = folder / "figures" / name
    file.write_bytes(file.read_bytes() + b"<!-- mine -->")
    os.utime(file, (LONG_AGO, LONG_AGO))
    render([measured()], folder)
    assert contents(folder) == contents(before)
    assert written_now(folder) == {f"figures/{name}"}


def noise_for_all_weights(reading: Reading) -> bool:
    return isinstance(reading.probe, WeightNoise) and reading.probe.scale == "absolute"


def test_a_changed_measurement_changes_its_figure_and_no_other(folder: Path, before: Path) -> None:
    result = measured()
    last = [i for i, each in enumerate(result.readings) if noise_for_all_weights(each)][-1]
    readings = list(result.readings)
    end = readings[last].end
    louder = replace(end, values={**end.values, "absolute_noise_0.01": 7.0})
    readings[last] = replace(readings[last], looks=(louder,))
    render([replace(result, readings=tuple(readings))], folder)
    assert changed_figures(before, folder) == {"noise"}
    assert {name for name in written_now(folder) if name.startswith("figures/")} == {
        f"figures/loss_landscape_noise.{kind}" for kind in ("svg", "png")
    }
    fresh = render([replace(result, readings=tuple(readings))], folder / "fresh")
    assert (folder / "report.html").read_bytes() == fresh.read_bytes()


@pytest.mark.parametrize(
    ("column", "figures"),
    [
        ("lambda_max", {"curvature", "scaling"}),
        ("test_accuracy", {"sweep"}),
        ("seconds", set()),
        ("trace", set()),
    ],
)
def test_a_changed_number_of_a_run_changes_the_figures_that_show_it(
    folder: Path, before: Path, column: str, figures: set[str]
) -> None:
    """In the last digit, of one run of an arm that no claim is about."""
    one = (pl.col("arm") == "cnn_equal_epochs") & (pl.col("seed") == 0) & (pl.col("level") == "8")
    one = one if column != "lambda_max" else (pl.col("arm") == "equal_epochs") & (pl.col("seed") == 0)
    table, _ = few()
    changed = table.with_columns(pl.when(one).then(pl.col(column) * (1 + 2**-52)).otherwise(pl.col(column)))
    assert not changed.equals(table)
    render([replace(measured(), frame=changed)], folder)
    assert changed_figures(before, folder) == figures


def test_a_changed_verdict_changes_the_figure_of_effects(tmp_path: Path) -> None:
    result = made_up.result()
    old, new = (render([result], tmp_path / name).parent for name in ("old", "new"))
    first, *others = result.verdicts
    moved = replace(first, interval=replace(first.interval, upper=first.interval.upper + 0.01))
    render([replace(result, verdicts=(moved, *others))], new)
    assert changed_figures(old, new) == {"effects"}


def test_a_status_changes_all_figures_that_leave_failed_runs_out(folder: Path, before: Path) -> None:
    one = (pl.col("arm") == "equal_loss") & (pl.col("seed") == 0)
    table, _ = few()
    failed = table.with_columns(status=pl.when(one).then(pl.lit("diverged")).otherwise(pl.col("status")))
    render([replace(measured(), frame=failed)], folder)
    assert changed_figures(before, folder) == {
        *("scaling", "curvature", "noise", "spectra", "surfaces", "along"),
        "sweep",
    }


class Drawer:
    """Draws a line, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> Drawing:
        self.times += 1
        figure = Figure()
        figure.subplots().plot([0.0, 1.0])
        return Drawing("line", "a line", "A line.", figure)


def shown(folder: Path, inputs: object, draw: Callable[[], Drawing | None], code: tuple[str, ...] = ("1",)) -> bool:
    figures = FigureCache(folder, code)
    there = figures.shown("s", inputs, draw) is not None
    figures.save()
    return there


def report(folder: Path, draw: Drawer) -> list[Shown | None]:
    """A report of one figure, and of one for which there is nothing to draw."""
    figures = FigureCache(folder, ("1",))
    there = [figures.shown("line", [1.0], draw), figures.shown("nothing", [], lambda: None)]
    figures.save()
    return there


@pytest.mark.parametrize("name", ["line.svg", "line.png"])
@pytest.mark.parametrize("damage", ["gone", "cut", "edited"])
def test_a_file_that_is_not_as_it_was_drawn_is_drawn_again(tmp_path: Path, name: str, damage: str) -> None:
    draw = Drawer()
    first, old = report(tmp_path, draw), contents(tmp_path)
    for each in old:
        os.utime(tmp_path / each, (LONG_AGO, LONG_AGO))
    file = tmp_path / "figures" / name
    content = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes(content[: len(content) // 2] if damage == "cut" else content + b"<!-- mine -->")
        os.utime(file, (LONG_AGO, LONG_AGO))
    assert report(tmp_path, draw) == first and draw.times == 2
    assert contents(tmp_path) == old
    assert written_now(tmp_path) == {f"figures/{name}"}


def other_caption(text: str) -> str:
    """A manifest in which someone improved the caption of a figure."""
    assert "A line." in text
    return text.replace("A line.", "Two lines.")


def without_figures(text: str) -> str:
    """A manifest that says of every figure that there was nothing to draw."""
    records = json.loads(text)
    return json.dumps({name: record | {"svg": None, "png": None} for name, record in records.items()})


@pytest.mark.parametrize(
    "damaged",
    [
        *(lambda _, text=text: text for text in ("", "[]", "{}", "null", "3", "not JSON", '{"a": 1}', '{"a": {}}')),
        lambda text: text[: len(text) // 2],
        lambda text: "[" * 100_000,
        lambda text: text.replace('"svg": "', '"svg": "0'),
        other_caption,
        without_figures,
    ],
)
def test_a_damaged_manifest_leads_to_drawing_again(tmp_path: Path, damaged: Callable[[str], str]) -> None:
    draw = Drawer()
    first, old = report(tmp_path, draw), contents(tmp_path)
    file = drawn_figures_file(tmp_path)
    file.write_text(damaged(file.read_text()))
    assert report(tmp_path, draw) == first and draw.times == 2
    assert contents(tmp_path) == old


def test_a_manifest_that_is_no_text_leads_to_drawing_again(tmp_path: Path) -> None:
    draw = Drawer()
    first, old = report(tmp_path, draw), contents(tmp_path)
    drawn_figures_file(tmp_path).write_bytes(b"\xff\xfe\x00")
    assert report(tmp_path, draw) == first and draw.times == 2
    assert contents(tmp_path) == old


def test_another_version_draws_everything_again(tmp_path: Path) -> None:
    draw = Drawer()
    for code in (("1", "matplotlib 3.9"), ("1", "matplotlib 3.9"), ("1", "matplotlib 3.10"), ("2", "matplotlib 3.10")):
        shown(tmp_path, [1.0], draw, code)
    assert draw.times == 3


@pytest.mark.parametrize(
    "other", [[1, None], [1.0, float("nan")], ["1.0", None], [1.0 + 2**-52, None], [1.0], [[1.0, None]], (1.0, 0.0)]
)
def test_inputs_that_are_nearly_the_same_are_different(tmp_path: Path, other: object) -> None:
    draw = Drawer()
    assert shown(tmp_path, [1.0, None], draw) and shown(tmp_path, [1.0, None], draw)
    assert draw.times == 1
    shown(tmp_path, other, draw)
    assert draw.times == 2


def test_nothing_to_draw_is_remembered(tmp_path: Path) -> None:
    asked: list[int] = []

    def nothing() -> None:
        asked.append(1)

    assert not any(shown(tmp_path, inputs, nothing) for inputs in (1, 1, 2))
    assert len(asked) == 2
    assert shown(tmp_path, 3, Drawer()) and not shown(tmp_path, 4, lambda: None)


def test_a_page_has_the_figure_that_was_drawn_for_it(tmp_path: Path) -> None:
    """Also if another report writes a file of that name meanwhile, or removes it."""
    first, figures = Drawer(), FigureCache(tmp_path, ("1",))

    def overtaken() -> Drawing:
        drawing = first()
        FigureCache(tmp_path, ("1",)).shown("a", 2, Drawer())
        return drawing

    found, alone = figures.shown("a", 1, overtaken), FigureCache(tmp_path / "alone", ("1",)).shown("a", 1, Drawer())
    assert found is not None and alone is not None and found.art == alone.art


def test_two_reports_that_take_turns_in_a_folder_have_their_own_figures(tmp_path: Path) -> None:
    for number in (1, 2, 1):
        figures = FigureCache(tmp_path, ("1",))
        found, alone = (each.shown("a", number, Drawer()) for each in (figures, FigureCache(tmp_path / "x", ("1",))))
        figures.save()
        assert found is not None and alone is not None and (found.alt, found.art) == (alone.alt, alone.art)


def test_figures_of_other_studies_are_kept(tmp_path: Path) -> None:
    """A report of fewer studies in the same folder does not forget those of the others."""
    first = Drawer()
    figures = FigureCache(tmp_path, ("1",))
    figures.shown("a", 1, first)
    figures.save()
    shown(tmp_path, 1, Drawer())
    last = FigureCache(tmp_path, ("1",))
    last.shown("a", 1, first)
    last.save()
    assert first.times == 1
