"""The figures of measurements: how each is drawn, and of which probes. A figure is one module and one line here."""

from collections.abc import Callable
from typing import NamedTuple

from overparam.report.figures import along, curvature, masks, noise, spectra, surfaces
from overparam.report.figures.drawing import Drawing, Material, Wanted


class MeasuredFigure(NamedTuple):
    """`draw` is given the material that the wanted probes measured and nothing else; None if it finds nothing in it."""

    name: str
    wanted: Wanted
    draw: Callable[[Material], Drawing | None]


MEASURED_FIGURES = (
    MeasuredFigure("curvature", curvature.is_final_curvature, curvature.curvature),
    MeasuredFigure("noise", noise.is_absolute_noise, noise.noise),
    MeasuredFigure("spectra", spectra.is_whole_spectrum, spectra.spectra),
    MeasuredFigure("surfaces", surfaces.is_surface, surfaces.surfaces),
    MeasuredFigure("along", along.is_curvature_along, along.along),
    MeasuredFigure("masks", masks.is_mask_profile, masks.masks),
)
