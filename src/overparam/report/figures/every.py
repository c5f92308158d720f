"""Figures of what probes found, one module for each: curvature, noise, spectra, surfaces, curvature in time, masks."""

from collections.abc import Sequence

import polars as pl

from overparam.probes.reading import Reading
from overparam.report.figures.along import along
from overparam.report.figures.curvature import curvature
from overparam.report.figures.drawing import Drawing, Material
from overparam.report.figures.masks import masks
from overparam.report.figures.noise import noise
from overparam.report.figures.spectra import spectra
from overparam.report.figures.style import styled
from overparam.report.figures.surfaces import surfaces
from overparam.studies.study import Design


def landscape_drawings(factor: str, design: Design, frame: pl.DataFrame, readings: Sequence[Reading]) -> list[Drawing]:
    """Every figure for which there are measurements; `factor` is the name of what the levels are levels of."""
    material = Material(factor, design, frame, tuple(readings))
    with styled():
        drawings = [make(material) for make in (curvature, noise, spectra, surfaces, along, masks)]
    return [drawing for drawing in drawings if drawing is not None]
