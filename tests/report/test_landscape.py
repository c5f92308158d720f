"""Figures of probes: what is drawn are the numbers that were measured."""

import math

import numpy as np
import polars as pl
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.lines import Line2D

from overparam.analyse.frame import Reading
from overparam.report.figures import to_svg
from overparam.report.landscape import Drawing, geometric, landscape_drawings
from overparam.specs import (
    Cell,
    Eigenvalues,
    Measured,
    Noise,
    SpectralDensity,
    Surface,
)
from overparam.specs.probe import probe_id
from overparam.studies.loss_landscape import LOSS_LANDSCAPE

DESIGN = LOSS_LANDSCAPE.designs["smoke"]


def row(probe: Measured, level: float, seed: int) -> dict[str, object]:
    """Made-up numbers of one probe at one step: λmax is the level, times a little for each seed."""
    base: dict[str, object] = {"step": 1, "epoch": 1.0, "lr": 0.1, "lambda_max": level * 1.1**seed}
    base |= {name: level * 1.1**seed for name in probe.metrics}
    match probe:
        case Noise():
            base |= {"sigma": list(probe.sigmas)}
        case SpectralDensity():
            base |= {"nodes": [[-0.1, 0.0, level]] * 2, "weights": [[0.1, 0.8, 0.1]] * 2}
        case Surface():
            base |= {"coordinates": [-1.0, 0.0, 1.0], "losses": [[1.0, 2.0, None], [1.0, 0.1, 1.0], [3.0, 2.0, 1.0]]}
    return base


def reading(cell: Cell, probe: Measured) -> Reading:
    assert not isinstance(cell.level, str)
    rows = tuple(row(probe, cell.level, cell.seed) for _ in probe.at)
    return Reading(cell.arm, format(cell.level, "g"), cell.seed, cell.spec, probe, rows)


def everything() -> tuple[pl.DataFrame, list[Reading]]:
    cells = [cell for cell in DESIGN.cells() if not isinstance(cell.level, str)]
    rows = [
        {
            "arm": cell.arm,
            "level": format(cell.level, "g"),
            "level_value": float(cell.level),
            "seed": cell.seed,
            "status": "ok",
            "train_loss": 0.1,
            "lambda_max": float(cell.level) * 1.1**cell.seed,
            "lambda_max_per_loss": 10.0 * float(cell.level) * 1.1**cell.seed,
        }
        for cell in cells
    ]
    return pl.DataFrame(rows), [reading(cell, probe) for cell in cells for probe in DESIGN.probes_of(cell)]


@pytest.fixture(scope="module")
def drawings() -> dict[str, Drawing]:
    frame, readings = everything()
    return {drawing.name: drawing for drawing in landscape_drawings(DESIGN, frame, readings)}


def data(line: Line2D) -> tuple[list[float], list[float]]:
    x, y = (np.asarray(values, dtype=np.float64).tolist() for values in line.get_data())
    return x, y


def first_line(drawing: Drawing) -> tuple[list[float], list[float]]:
    """The points of the first bars in the first panel."""
    bars = drawing.figure.axes[0].containers[0]
    assert isinstance(bars, ErrorbarContainer) and bars.lines[0] is not None
    return data(bars.lines[0])


def test_every_kind_of_measurement_has_its_figure(drawings: dict[str, Drawing]) -> None:
    assert list(drawings) == ["curvature", "noise", "spectra", "surfaces", "along"]
    for drawing in drawings.values():
        assert drawing.alt and drawing.caption
        assert "mathdefault" not in to_svg(drawing.figure)


def test_curvature_draws_geometric_means(drawings: dict[str, Drawing]) -> None:
    x, y = first_line(drawings["curvature"])
    middle = 1.1**2  # the geometric mean of 1.1⁰ … 1.1⁴
    assert list(x) == [8, 32, 128, 1297]
    assert np.allclose(y, np.array([8, 32, 128, 1297]) * middle)


def test_noise_draws_every_sigma(drawings: dict[str, Drawing]) -> None:
    x, _ = first_line(drawings["noise"])
    assert list(x) == [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05]


def test_spectra_have_the_mass_of_their_nodes(drawings: dict[str, Drawing]) -> None:
    line = drawings["spectra"].figure.axes[0].lines[0]
    x, y = data(line)
    assert np.trapezoid(y, x) == pytest.approx(1.0, abs=1e-3)


def test_surfaces_share_one_scale_and_mask_what_is_not_finite(drawings: dict[str, Drawing]) -> None:
    left, right = drawings["surfaces"].figure.axes[:2]
    assert left.get_title(loc="left") != right.get_title(loc="left")
    assert left.collections[0].get_clim() == right.collections[0].get_clim()


def test_stability_bound_is_that_of_the_momentum(drawings: dict[str, Drawing]) -> None:
    axes = drawings["along"].figure.axes[1]
    heights = [set(data(line)[1]) for line in axes.lines if line.get_linestyle() == "--"]
    assert {2.0 * 1.9} in heights


def test_nothing_measured_draws_nothing() -> None:
    frame, _ = everything()
    assert list(landscape_drawings(DESIGN, frame.drop("lambda_max"), [])) == []


def test_geometric_means_have_intervals_of_logarithms() -> None:
    middle, low, high = geometric([1.0, 10.0, 100.0])
    assert middle == pytest.approx(10.0) and low * high == pytest.approx(100.0)
    assert math.isnan(geometric([5.0])[1])


def test_probes_of_the_study_are_distinct() -> None:
    """Two probings of one id would be measured once and counted twice."""
    ids = [probe_id(each.probe) for each in DESIGN.probings]
    assert len(set(ids)) == len(ids)
    assert any(isinstance(each.probe, Eigenvalues) and len(each.probe.at) > 1 for each in DESIGN.probings)
