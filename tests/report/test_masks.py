"""The figure of masks: a layer's density and the overlap of seeds are drawn where they were measured."""

import numpy as np
import polars as pl

from overparam.analyse.frame import Reading, level_text
from overparam.report.drawing import Material
from overparam.report.masks import masks
from overparam.specs import Cell, MaskProfile
from overparam.studies.lottery_ticket import LOTTERY_TICKET

DESIGN = LOTTERY_TICKET.designs["smoke"]


def probes(cell: Cell) -> list[MaskProfile]:
    return [probe for probe in DESIGN.probes_of(cell) if isinstance(probe, MaskProfile)]


CELLS = [cell for cell in DESIGN.cells() if probes(cell)]


def reading(cell: Cell) -> Reading:
    """Two layers, one twice and one half as dense as all; excess 2, and .1 more for each seed; none of seed 0."""
    (probe,) = probes(cell)
    share = float(cell.level) / 100
    overlap = {"mask_excess": 2 + 0.1 * cell.seed, "mask_overlap_z": 3.0 * cell.seed}
    found = dict.fromkeys(overlap, None) if cell.seed == 0 else overlap
    row = {"layers": ["first", "second"], "densities": [2 * share, share / 2], **found}
    return Reading(cell.arm, level_text(cell.level), cell.seed, cell.spec, probe, (row,))


def material(status: str = "ok") -> Material:
    runs = [{"arm": c.arm, "level": level_text(c.level), "seed": c.seed, "status": status} for c in CELLS]
    return Material("remaining weights, %", DESIGN, pl.DataFrame(runs), tuple(reading(cell) for cell in CELLS))


def test_layers_and_overlaps_are_drawn_at_their_densities() -> None:
    drawing = masks(material())
    assert drawing is not None
    layers, shared = drawing.figure.axes
    lines = {str(line.get_label()): np.asarray(line.get_xydata()) for line in layers.get_lines()}
    levels = np.array([70.0, 50.0, 30.0, 20.0, 10.0, 5.0])
    for layer, share in (("first", 2 * levels), ("second", levels / 2)):
        np.testing.assert_allclose(lines[layer], np.stack([levels, share], axis=1))
    drawn = [np.asarray(line.get_xydata()) for line in shared.get_lines()]
    means = np.stack([levels, np.full(6, 2.25)], axis=1)  # of seeds 1 to 4
    assert any(each.shape == means.shape and np.allclose(each, means) for each in drawn)
    assert "3.0 to 12.0 standard deviations" in drawing.caption


def test_without_masks_there_is_no_figure() -> None:
    assert masks(material(status="diverged")) is None
    assert masks(Material("x", DESIGN, material().frame, ())) is None
