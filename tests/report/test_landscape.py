"""Figures of probes: what is drawn are the numbers that were measured, and captions say what was left out."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.lines import Line2D

from overparam.probes.extreme_eigenvalues import ExtremeEigenvalues
from overparam.probes.loss_surface import LossSurface
from overparam.probes.probe import probe_id
from overparam.probes.reading import Reading
from overparam.probes.spectral_density import SpectralDensity
from overparam.probes.weight_noise import WeightNoise
from overparam.report.figures.drawing import Drawing, geometric
from overparam.report.figures.noise import reversals
from overparam.report.figures.spectra import BANDWIDTH, linear_core, resolution
from overparam.report.figures.surfaces import log_increases
from overparam.report.figures.svg import to_svg
from tests.report.material import DESIGN, FACTOR, everything
from tests.report.material import drawings as drawings_of

TITLES = {arm.name: arm.title for arm in DESIGN.arms}


def drawn(frame: pl.DataFrame, readings: list[Reading], *names: str) -> dict[str, Drawing]:
    return {drawing.name: drawing for drawing in drawings_of(frame, readings, names)}


def drawing_of(name: str, frame: pl.DataFrame, readings: list[Reading]) -> Drawing:
    return drawn(frame, readings, name)[name]


@pytest.fixture(scope="module")
def drawings() -> dict[str, Drawing]:
    return drawn(*everything())


def data(line: Line2D) -> tuple[list[float], list[float]]:
    x, y = (np.asarray(values, dtype=np.float64).tolist() for values in line.get_data())
    return x, y


def lines(axes: Axes) -> list[tuple[list[float], list[float]]]:
    """The points of all bars in a panel."""
    bars = [each for each in axes.containers if isinstance(each, ErrorbarContainer)]
    return [data(bar.lines[0]) for bar in bars if bar.lines[0] is not None]


def changed(readings: list[Reading], kind: type, change: Callable[[dict[str, Any]], dict[str, Any]]) -> list[Reading]:
    """The readings with the rows of one kind of probe changed."""
    return [
        replace(each, looks=tuple(replace(look, values=change(dict(look.values))) for look in each.looks))
        if isinstance(each.probe, kind)
        else each
        for each in readings
    ]


def test_every_kind_of_measurement_has_its_figure(drawings: dict[str, Drawing]) -> None:
    assert list(drawings) == ["curvature", "noise", "spectra", "surfaces", "along"]
    for drawing in drawings.values():
        assert drawing.alt and drawing.caption
        assert "mathdefault" not in to_svg(drawing.figure)


def test_nothing_measured_draws_nothing() -> None:
    frame, _ = everything()
    assert drawings_of(frame.drop("lambda_max"), []) == []


def test_captions_say_how_many_seeds_examples_and_runs(drawings: dict[str, Drawing]) -> None:
    seeds = {"curvature": "5 seeds", "noise": "5 seeds", "spectra": "2 seeds", "surfaces": "1 seed", "along": "2 seeds"}
    for name, drawing in drawings.items():
        assert f"n = {seeds[name]}, measured on the first 200 training examples." in drawing.caption
        assert "left out" not in drawing.caption


def test_runs_that_failed_or_were_not_measured_are_counted_and_not_drawn() -> None:
    """Seed 0 of every cell diverged, and seed 1 of one level was never measured."""
    frame, readings = everything()
    status = pl.when(pl.col("seed") == 0).then(pl.lit("diverged")).otherwise(pl.lit("ok"))
    found = drawn(
        frame.with_columns(status=status),
        [r for r in readings if (r.arm, r.level, r.seed) != ("equal_loss", "8", 1)],
        *("curvature", "noise", "spectra", "surfaces"),
    )
    cells = sum(len(arm.levels) for arm in DESIGN.arms)
    assert (
        f"n = 3 to 4 seeds, measured on the first 200 training examples. Runs left out: {cells} diverged, 1 not mea"
        in (found["noise"].caption)
    )
    assert "n = 1 seed, " in found["spectra"].caption and "2 diverged, 1 not measured" in found["spectra"].caption
    assert len(found["spectra"].figure.axes[0].lines) == 1
    assert f"Runs left out: {cells} diverged." in found["curvature"].caption
    assert "surfaces" not in found  # no seed has two levels left


def test_curvature_draws_geometric_means(drawings: dict[str, Drawing]) -> None:
    x, y = lines(drawings["curvature"].figure.axes[0])[0]
    middle = 1.1**2  # the geometric mean of 1.1⁰ … 1.1⁴
    assert list(x) == [8, 32, 128, 1297]
    assert np.allclose(y, np.array([8, 32, 128, 1297]) * middle)
    assert drawings["curvature"].figure.axes[0].get_xlabel() == FACTOR


def test_levels_without_a_number_are_in_the_last_panel_and_named(drawings: dict[str, Drawing]) -> None:
    dots = [np.asarray(each.get_offsets()) for each in drawings["curvature"].figure.axes[-1].collections]
    assert sum(map(len, dots)) == len(list(DESIGN.cells()))
    assert "adam-32, full lr 0.1, full lr 0.05" in drawings["curvature"].caption
    frame, readings = everything()
    numeric = drawing_of("curvature", frame.filter(pl.col("level_value").is_not_null()), readings)
    assert "positive numbers" not in numeric.caption


def test_a_level_of_zero_has_no_place_on_the_axis_and_is_named() -> None:
    frame, readings = everything()
    zero = pl.when(pl.col("level") == "8").then(0.0).otherwise(pl.col("level_value"))
    found = drawing_of("curvature", frame.with_columns(level_value=zero), readings)
    assert all(x == [32, 128, 1297] for x, _ in lines(found.figure.axes[0])[:1])
    assert "Levels that are not positive numbers are in the last panel only: 8, " in found.caption


def test_panels_of_what_is_not_measured_are_left_out(drawings: dict[str, Drawing]) -> None:
    frame, readings = everything()
    name = "lambda_max_per_softmax_variance"
    empty = drawing_of("curvature", frame.with_columns(pl.lit(None, pl.Float64).alias(name)), readings)
    for each in (empty, drawing_of("curvature", frame.drop(name), readings)):
        assert len(each.figure.axes) == 3 and "oftmax" not in each.caption + each.alt
    assert len(drawings["curvature"].figure.axes) == 4 and "oftmax variance" in drawings["curvature"].caption


def test_noise_draws_every_sigma_of_every_arm(drawings: dict[str, Drawing]) -> None:
    axes = drawings["noise"].figure.axes
    assert [each.get_title(loc="left").replace("\n", " ") for each in axes[: len(TITLES)]] == list(TITLES.values())
    for panel in axes:
        assert all(x == [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05] for x, _ in lines(panel))


def test_noise_of_one_sigma_is_drawn_in_the_middle_of_its_axis() -> None:
    frame, readings = everything()
    one = {"sigma": [0.01]}
    alone = [
        replace(each, probe=each.probe.model_copy(update={"sigmas": (0.01,)}))
        for each in changed(readings, WeightNoise, lambda row: row | one)
        if isinstance(each.probe, WeightNoise)
    ]
    drawing = drawing_of("noise", frame, alone)
    to_svg(drawing.figure)
    for panel in drawing.figure.axes:
        low, high = panel.get_xlim()
        assert low < 0.005 and high > 0.02
        assert all(x == [0.01] for x, _ in lines(panel))


@pytest.mark.parametrize("kept", [["8"], ["full"], ["8", "full"]])
def test_one_numeric_level_or_none_is_drawn_as_well(kept: list[str]) -> None:
    frame, readings = everything()
    fewer = frame.filter(pl.col("level").is_in(kept))
    for drawing in drawn(fewer, [each for each in readings if each.level in kept]).values():
        to_svg(drawing.figure)


def test_noise_in_percent_of_the_base_reverses_what_the_absolute_increase_orders(drawings: dict[str, Drawing]) -> None:
    """Made-up increases grow with the level and base losses with its square."""
    axes = drawings["noise"].figure.axes
    above, below = lines(axes[0])[:4], lines(axes[len(TITLES)])[:4]
    assert [y[-1] for _, y in above] == pytest.approx([level * 1.1**2 for level in (8, 32, 128, 1297)])
    assert [y[-1] for _, y in below] == pytest.approx([100 / (level * 1.1**2) for level in (8, 32, 128, 1297)])
    _, readings = everything()
    mine = [
        r for r in readings if isinstance(r.probe, WeightNoise) and r.probe.scale == "absolute" and r.arm == "linear_lr"
    ]
    assert reversals(mine) == (42, 42)  # six pairs of levels at seven σ
    assert reversals(changed(mine, WeightNoise, lambda row: row | {"loss": 2.0})) == (0, 42)


def test_increases_that_are_not_positive_are_counted(drawings: dict[str, Drawing]) -> None:
    frame, readings = everything()
    below = drawing_of(
        "noise", frame, changed(readings, WeightNoise, lambda row: row | {"absolute_noise_0.0005": -1e-9})
    )
    assert f"Not drawn: {len(list(DESIGN.cells()))} increases that were not positive." in below.caption
    assert all(x[0] == 0.001 for x, _ in lines(below.figure.axes[0]))
    assert "Not drawn" not in drawings["noise"].caption


def test_spectra_keep_the_mass_of_all_nodes_on_the_axis(drawings: dict[str, Drawing]) -> None:
    """The top node, far beyond 100, is inside the limits of the axis and under its own peak."""
    axes = drawings["spectra"].figure.axes[0]
    low, high = axes.get_xlim()
    _, readings = everything()
    core = linear_core([each for each in readings if isinstance(each.probe, SpectralDensity)])
    assert len(axes.lines) == 4
    for line, level in zip(axes.lines, (8, 8 * 1.1, 128, 128 * 1.1), strict=True):
        x, y = data(line)
        assert (min(x), max(x)) == (low, high)
        assert np.trapezoid(y, x) == pytest.approx(1.0, abs=1e-3)
        top = math.asinh(50.0 * level / core)
        peak = 0.1 / (BANDWIDTH * math.sqrt(2 * math.pi))
        assert top < high and np.interp(top, x, y) == pytest.approx(peak, rel=0.01)


def test_spectra_have_one_peak_where_nodes_cannot_tell_more(drawings: dict[str, Drawing]) -> None:
    """Nodes at −.01 and .02, between others at −.4 and .6: one hump within ±.5."""
    x, y = (np.array(each) for each in data(drawings["spectra"].figure.axes[0].lines[0]))
    inside = y[np.abs(x) < 1.0]
    assert (np.diff(np.sign(np.diff(inside))) != 0).sum() == 1
    assert "asinh(λ/0.5)" in drawings["spectra"].caption


def test_resolution_is_that_of_the_nodes() -> None:
    """In the middle of a spectrum of spread R nodes of m steps stand πR/2m apart; three gaps surround 0."""
    nodes = 350.0 * np.cos((np.arange(40) + 0.5) * np.pi / 40)
    assert resolution(nodes.tolist(), [1 / 40] * 40) == pytest.approx(1.5 * np.pi * 700.0 / 80, rel=0.01)
    assert resolution([-1.0, 0.0, 0.0, 3.0], [0.5, 0.0, 0.0, 0.5]) == 2.0
    assert resolution([0.0], [1.0]) == 0.0


def test_spectra_have_readable_ticks(drawings: dict[str, Drawing]) -> None:
    axes = drawings["spectra"].figure.axes[0]
    low, high = axes.get_xlim()
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert {"−1", "0", "1", "10", "100", "1000"} <= set(labels)
    assert all(low <= place <= high for place in axes.get_xticks())


def test_surfaces_share_one_scale_and_mask_what_is_not_finite(drawings: dict[str, Drawing]) -> None:
    left, right = drawings["surfaces"].figure.axes[:2]
    titles = [axes.get_title(loc="left") for axes in (left, right)]
    assert titles == [f"{TITLES['equal_loss']}, {FACTOR} {level}" for level in (8, 128)]
    assert left.collections[0].get_clim() == right.collections[0].get_clim()


def test_surfaces_show_the_rise_over_the_centre_and_not_the_base() -> None:
    plane = np.array([[1.0, 2.0, np.nan], [1.0, 0.0, 0.5], [-1.0, 2.0, 1.0]])
    low, high = log_increases([plane, plane + 64.0])
    assert np.array_equal(low, high, equal_nan=True)
    assert 10.0 ** low[0, 1] == pytest.approx(2.0)
    assert 10.0 ** low[[1, 2], [1, 0]] == pytest.approx([0.5, 0.5])  # not above the centre: the smallest rise
    assert math.isnan(low[0, 2])


def test_surfaces_are_of_the_last_arm_that_has_two_levels() -> None:
    frame, readings = everything()
    mine = [each for each in readings if isinstance(each.probe, LossSurface)]
    earlier = [replace(each, arm="equal_epochs") for each in mine]
    lone = [replace(each, arm="cnn_equal_epochs") for each in mine if each.level == "8"]
    found = drawing_of("surfaces", frame, [*lone, *mine, *earlier])
    assert found.caption.startswith(f"{TITLES['equal_loss']}, seed 0: ")
    assert drawing_of("surfaces", frame, [*lone, *earlier]).caption.startswith(f"{TITLES['equal_epochs']}, seed 0: ")


def test_colour_bars_have_round_numbers(drawings: dict[str, Drawing]) -> None:
    bar = drawings["surfaces"].figure.axes[2]
    assert [label.get_text() for label in bar.get_yticklabels()] == ["0.5", "1", "2", "5", "10", "20"]
    assert 10.0 ** np.array(bar.get_yticks()) == pytest.approx([0.5, 1, 2, 5, 10, 20])


def test_stability_bound_is_that_of_the_momentum(drawings: dict[str, Drawing]) -> None:
    axes = drawings["along"].figure.axes[1]
    heights = [set(data(line)[1]) for line in axes.lines if line.get_linestyle() == "--"]
    assert heights == [{2.0 * 1.9}]


def test_curvature_along_training_has_gaps_where_a_solve_did_not_converge(drawings: dict[str, Drawing]) -> None:
    frame, readings = everything()
    stopped = drawing_of(
        "along", frame, changed(readings, ExtremeEigenvalues, lambda row: row | {"status": "max_products"})
    )
    steps = 4 * len(next(r for r in readings if isinstance(r.probe, ExtremeEigenvalues) and len(r.probe.at) > 1).looks)
    assert f"Not drawn: {steps} steps" in stopped.caption
    assert all(np.isnan(data(line)[1]).all() for line in stopped.figure.axes[0].lines)
    assert [data(line)[1][0] for line in drawings["along"].figure.axes[1].lines[:4]] == pytest.approx(
        [0.1 * level * 1.1**seed for level in (8, 128) for seed in (0, 1)]
    )
    assert "Not drawn" not in drawings["along"].caption


def test_every_log_axis_has_several_numbers(drawings: dict[str, Drawing]) -> None:
    checked = 0
    for drawing in drawings.values():
        drawing.figure.canvas.draw()
        for panel in drawing.figure.axes:
            for axis in (each for each in (panel.xaxis, panel.yaxis) if each.get_scale() == "log"):
                low, high = axis.get_view_interval()
                label = axis.get_major_formatter()
                assert sum(low <= place <= high and label(place, 0) != "" for place in axis.get_ticklocs()) >= 2
                checked += 1
    assert checked > 20


def test_keys_fit_into_their_figures(drawings: dict[str, Drawing]) -> None:
    for drawing in drawings.values():
        drawing.figure.canvas.draw()
        for legend in drawing.figure.legends:
            box = legend.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= drawing.figure.bbox.width


def test_geometric_means_have_intervals_of_logarithms() -> None:
    middle, low, high = geometric([1.0, 10.0, 100.0])
    assert middle == pytest.approx(10.0) and low * high == pytest.approx(100.0)
    assert math.isnan(geometric([5.0])[1])


def test_probes_of_the_study_are_distinct() -> None:
    """Two probings of one id would be measured once and counted twice."""
    ids = [probe_id(each.probe) for each in DESIGN.probings]
    assert len(set(ids)) == len(ids)
    assert any(isinstance(each.probe, ExtremeEigenvalues) and len(each.probe.at) > 1 for each in DESIGN.probings)
