"""Why noise that follows the weights falls with width at equal train loss and the trace does not: sizes of weights.

Noise of standard deviation σ|w_i| raises the loss by `σ²/2 Σ_i H_ii w_i²`, to second order. Were H_ii and w_i² not
related, that would be `σ²/2 · tr H · mean(w²)`: the exponents in the width would add up. A table of README.md.

    python docs/results/descent_weights.py STORE      where `overparam run double_descent --preset laptop` has run
"""

import sys
from collections.abc import Mapping
from math import log
from pathlib import Path
from statistics import linear_regression

from paper_table import show

from overparam.analyse.intervals import t_interval
from overparam.execution import Execution
from overparam.runs import read
from overparam.specs.probe import probe_id
from overparam.store.store import Store
from overparam.studies.double_descent.claims import EQUAL_LOSS
from overparam.studies.double_descent.designs import DESIGNS

NAMES = ("trace", "adaptive_noise_0.2")


def exponent(by_width: Mapping[float, float]) -> float:
    return linear_regression([log(width) for width in by_width], [log(value) for value in by_width.values()]).slope


def main(store: Path) -> None:
    design = DESIGNS["laptop"]
    found: dict[str, dict[int, dict[float, float]]] = {}
    for cell in design.cells():
        if cell.arm == EQUAL_LOSS:
            run = read(cell.spec, Execution(store=store))
            weights = run.weights().values()
            square = sum(float(part.double().square().sum()) for part in weights) / sum(p.numel() for p in weights)
            rows = [Store(store).measurement(run.run_id, probe_id(each))["rows"] for each in design.probes_of(cell)]
            values = {name: value for row in rows if row for name, value in row[-1].items()}
            for name, value in {"mean square weight": square, **{n: values[n] for n in NAMES}}.items():
                found.setdefault(name, {}).setdefault(cell.seed, {})[float(cell.level)] = value
    slopes = {name: [exponent(by_width) for by_width in seeds.values()] for name, seeds in found.items()}
    slopes["trace times mean square weight"] = [
        a + b for a, b in zip(slopes["trace"], slopes["mean square weight"], strict=True)
    ]
    intervals = {name: t_interval(values) for name, values in slopes.items()}
    show(
        ["", "exponent in the width [95 %]"],
        [[n, f"{i.estimate:+.2f} [{i.lower:+.2f}, {i.upper:+.2f}]"] for n, i in intervals.items()],
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
