"""The figure of masks: a layer's density and the overlap of seeds are drawn where they were measured."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from numpy.typing import NDArray

from overparam.claims.estimand import level_text
from overparam.probes.mask_profile import MaskProfile
from overparam.probes.measurement import Look
from overparam.probes.reading import Reading
from overparam.report.figures.drawing import Material
from overparam.report.figures.masks import masks
from overparam.studies.lottery_ticket import LOTTERY_TICKET
from overparam.studies.study import Cell

DESIGN = LOTTERY_TICKET.designs["smoke"]
LEVELS = np.array([70.0, 50.0, 30.0, 20.0, 10.0, 5.0])
Row = dict[str, Any]


def probes(cell: Cell) -> list[MaskProfile]:
    return [probe for probe in DESIGN.probes_of(cell) if isinstance(probe, MaskProfile)]


CELLS = [cell for cell in DESIGN.cells() if probes(cell)]


def row(cell: Cell) -> Row:
    """Two layers, one twice and one half as dense as all; excess 2, and .1 more for each seed; none of seed 0."""
    share, near = float(cell.level) / 100, cell.arm.endswith("shuffled")
    shared = {"mask_excess": 2 + 0.1 * cell.seed, "mask_overlap_z": (-1.0 if near else 3.0) * cell.seed}
    shared |= {"mask_excess_by_inputs": 1.5}
    found = dict.fromkeys(shared, None) if cell.seed == 0 else shared
    return {"layers": ["first", "second"], "density": share, "densities": [2 * share, share / 2], **found}


def material(changed: Callable[[Row], Row] = dict, status: str = "ok", num_seeds: int = 5) -> Material:
    cells = [cell for cell in CELLS if cell.seed < num_seeds]
    runs = [{"arm": c.arm, "level": level_text(c.level), "seed": c.seed, "status": status} for c in cells]
    readings = [
        Reading(c.arm, level_text(c.level), c.seed, c.spec, probes(c)[0], (Look(1, 1.0, 0.1, changed(row(c))),))
        for c in cells
    ]
    return Material("a factor", DESIGN, pl.DataFrame(runs), tuple(readings))


def panels(material: Material) -> tuple[Axes, Axes, str]:
    drawing = masks(material)
    assert drawing is not None
    left, right = drawing.figure.axes
    return left, right, drawing.caption


def points(axes: Axes, label: str) -> NDArray[np.float64]:
    (line,) = [line for line in axes.get_lines() if line.get_label() == label]
    return np.asarray(line.get_xydata())


def bar_means(axes: Axes) -> list[NDArray[np.float64]]:
    bars = [each for each in axes.containers if isinstance(each, ErrorbarContainer)]
    return [np.asarray(bar.lines[0].get_xydata()) for bar in bars]


def test_layers_and_overlaps_are_drawn_at_their_densities() -> None:
    layers, shared, caption = panels(material())
    np.testing.assert_allclose(points(layers, "first"), np.stack([LEVELS, 2 * LEVELS], axis=1))
    np.testing.assert_allclose(points(layers, "second"), np.stack([LEVELS, LEVELS / 2], axis=1))
    ticket, shuffled, inputs = bar_means(shared)
    np.testing.assert_allclose(ticket, np.stack([LEVELS, np.full(6, 2.25)], axis=1))  # mean of seeds 1 to 4
    np.testing.assert_allclose(inputs[:, 1], 1.5)
    np.testing.assert_allclose(shuffled, [[10.0, 2.25]])  # controls are at 10 % only
    assert "iterative ticket 3.0 to 12.0" in caption and "shuffled within layers -4.0 to -1.0" in caption
    assert "n = 5 seeds." in caption and "training examples" not in caption


def test_an_interval_needs_three_pairs() -> None:
    def reach(num_seeds: int) -> float:
        _, shared, _ = panels(material(num_seeds=num_seeds))
        ends = [np.asarray(segment) for part in shared.collections for segment in part.get_segments()]  # type: ignore[attr-defined]
        return max(float(np.ptp(each[:, 1])) for each in ends)

    assert reach(3) == 0.0 < reach(4)


def test_a_layer_with_nothing_left_has_no_point() -> None:
    def without(found: Row) -> Row:
        return found | {"densities": [found["densities"][0], 0.0 if found["density"] < 0.1 else found["density"]]}

    layers, _, _ = panels(material(without))
    assert len(points(layers, "first")) == 6 and len(points(layers, "second")) == 5


def test_one_seed_has_layers_and_no_overlap() -> None:
    layers, shared, caption = panels(material(num_seeds=1))
    assert len(points(layers, "first")) == 6 and bar_means(shared) == []
    assert "Distances" not in caption


@pytest.mark.parametrize("chosen", ["none", "diverged"])
def test_without_masks_there_is_no_figure(chosen: str) -> None:
    whole = material(status="diverged" if chosen == "diverged" else "ok")
    assert masks(Material("x", DESIGN, whole.frame, whole.readings if chosen == "diverged" else ())) is None
