"""Made-up measurements of a whole design, with numbers whose figures are known."""

from collections.abc import Sequence

import polars as pl

from overparam.claims.estimand import level_text
from overparam.probes.extreme_eigenvalues import ExtremeEigenvalues
from overparam.probes.loss_surface import LossSurface
from overparam.probes.measurement import Look
from overparam.probes.probe import Probe
from overparam.probes.reading import Reading
from overparam.probes.spectral_density import SpectralDensity
from overparam.probes.weight_noise import WeightNoise
from overparam.report.figures.drawing import Drawing, Material
from overparam.report.figures.every import MEASURED_FIGURES
from overparam.report.figures.style import styled
from overparam.studies.loss_landscape import LOSS_LANDSCAPE
from overparam.studies.study import Cell

DESIGN = LOSS_LANDSCAPE.designs["smoke"]
FACTOR = "size of a batch"


def value(level: float | str, seed: int) -> float:
    """λmax and every other number: the level, times a little for each seed; 20 for levels that are names."""
    return (20.0 if isinstance(level, str) else level) * 1.1**seed


def row(probe: Probe, level: float | str, seed: int) -> dict[str, object]:
    """Numbers of one probe at one step. The loss grows as the square of the level, so that quotients fall with it."""
    top = value(level, seed)
    base: dict[str, object] = {"step": 1, "epoch": 1.0, "lr": 0.1, "loss": top**2, "lambda_max": top}
    base |= dict.fromkeys(probe.metrics, top)
    match probe:
        case ExtremeEigenvalues():
            base |= {"status": "converged", "lambda_max_per_loss": 1.0 / top}
        case WeightNoise():
            base |= {"sigma": list(probe.sigmas)}
        case SpectralDensity():
            base |= {"nodes": [[-0.4, -0.01, 0.02, 0.6, 50.0 * top]] * 2, "weights": [[0.1, 0.5, 0.2, 0.1, 0.1]] * 2}
            base |= {"num_parameters": 1000}
        case LossSurface():
            base |= {"coordinates": [-1.0, 0.0, 1.0]}
            base |= {"losses": [[top + x if x is not None else None for x in line] for line in RISES]}
    return base


RISES: list[list[float | None]] = [[1.0, 2.0, None], [1.0, 0.0, 0.5], [30.0, 2.0, 1.0]]


def reading(cell: Cell, probe: Probe) -> Reading:
    looks = tuple(Look.from_json(row(probe, cell.level, cell.seed)) for _ in probe.at)
    return Reading(cell.arm, level_text(cell.level), cell.seed, cell.spec, probe, looks)


def everything() -> tuple[pl.DataFrame, list[Reading]]:
    """The table of all runs, each of them ok, and every reading of the design."""
    cells = list(DESIGN.cells())
    columns = dict.fromkeys(name for each in DESIGN.probings for name in each.probe.columns)
    frame = pl.DataFrame([_run(cell) | {name: value(cell.level, cell.seed) for name in columns} for cell in cells])
    return frame, [reading(cell, probe) for cell in cells for probe in DESIGN.probes_of(cell)]


def drawings(frame: pl.DataFrame, readings: Sequence[Reading], names: Sequence[str] = ()) -> list[Drawing]:
    """Every figure of measurements for which there are any, or those of the given names."""
    material = Material(FACTOR, DESIGN, frame, tuple(readings))
    asked = [each for each in MEASURED_FIGURES if not names or each.name in names]
    with styled():
        drawn = [each.draw(material.measured_by(each.wanted)) for each in asked]
    return [each for each in drawn if each is not None]


def _run(cell: Cell) -> dict[str, object]:
    texts = {"run_id": "0" * 32, "data_digest": "d" * 32, "environment": "machine x, torch 2"}
    gap = 0.05 + 1e-5 * value(cell.level, 0) - 0.001 * (7 * cell.seed % 5)
    counts = {"steps": 100, "num_train": 1297, "num_test": 500}
    return {
        "arm": cell.arm,
        "level": level_text(cell.level),
        "level_value": None if isinstance(cell.level, str) else float(cell.level),
        "seed": cell.seed,
        "lr": cell.spec.train.optimizer.lr,
        "status": "ok",
        "train_loss": 0.1 + 0.01 * cell.seed,
        "train_accuracy": 0.99,
        "test_loss": 0.3,
        "test_accuracy": 0.99 - gap,
        "gap": gap,
        "epochs": 10.0,
        "seconds": 1.0,
        "probe_seconds": 0.0,
        "mixed": None,
        **texts,
        **counts,
    }
