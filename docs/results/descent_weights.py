"""Why noise that follows the weights falls with width at equal train loss and the trace does not: sizes of weights.

Noise of standard deviation σ|w_i| raises the loss by `σ²/2 Σ_i H_ii w_i²`, to second order. Were H_ii and w_i² not
related, that would be `σ²/2 · tr H · mean(w²)`: the exponents in the width would add up. Two tables of README.md:
exponents over all widths, and between neighbouring ones.

    python docs/results/descent_weights.py STORE      where `overparam run double_descent --preset laptop` has run
"""

import sys
from collections.abc import Iterable, Mapping
from itertools import pairwise
from math import log
from pathlib import Path
from statistics import linear_regression, mean

from paper_table import show

from overparam.claims.intervals import t_interval
from overparam.probes.probe import probe_id
from overparam.runs.execution import Execution
from overparam.runs.run import read
from overparam.runs.store import Store
from overparam.studies.double_descent.claims import EQUAL_LOSS
from overparam.studies.double_descent.designs import DESIGNS

SQUARE, TRACE, NOISE = "mean square weight", "trace", "loss increase under noise that follows the weights"
COLUMNS = {TRACE: "trace", NOISE: "adaptive_noise_0.2"}
PRODUCT = "trace times mean square weight"
Curves = list[Mapping[float, float]]  # of each seed, by width


def exponent(by_width: Mapping[float, float]) -> float:
    return linear_regression([log(width) for width in by_width], [log(value) for value in by_width.values()]).slope


def between(a: float, b: float, curves: Iterable[Mapping[float, float]]) -> float:
    """Mean exponent from width a to width b."""
    return mean(log(curve[b] / curve[a]) / log(b / a) for curve in curves)


def measured(store: Path) -> dict[str, Curves]:
    design = DESIGNS["laptop"]
    found: dict[str, dict[int, dict[float, float]]] = {}
    for cell in design.cells():
        if cell.arm == EQUAL_LOSS:
            run = read(cell.spec, Execution(store=store))
            weights = run.weights().values()
            square = sum(float(part.double().square().sum()) for part in weights) / sum(p.numel() for p in weights)
            rows = [Store(store).measurement(run.run_id, probe_id(each))["rows"] for each in design.probes_of(cell)]
            values = {name: value for row in rows if row for name, value in row[-1].items()}
            for name, value in {SQUARE: square, **{n: values[column] for n, column in COLUMNS.items()}}.items():
                found.setdefault(name, {}).setdefault(cell.seed, {})[float(cell.level)] = value
    curves: dict[str, Curves] = {name: list(seeds.values()) for name, seeds in found.items()}
    pairs = zip(curves[TRACE], curves[SQUARE], strict=True)
    return {**curves, PRODUCT: [{width: a[width] * b[width] for width in a} for a, b in pairs]}


def main(store: Path) -> None:
    curves = measured(store)
    intervals = {name: t_interval([exponent(each) for each in found]) for name, found in curves.items()}
    show(
        ["", "exponent in the width [95 %]"],
        [[n, f"{i.estimate:+.2f} [{i.lower:+.2f}, {i.upper:+.2f}]"] for n, i in intervals.items()],
    )
    print()
    steps = list(pairwise(curves[NOISE][0]))
    show(
        ["exponent between widths", *(f"{a:g}, {b:g}" for a, b in steps)],
        [[name, *(f"{between(a, b, curves[name]):+.2f}" for a, b in steps)] for name in (NOISE, PRODUCT)],
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
