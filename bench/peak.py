"""How often the peak detector calls a peak: on curves without one, and on peaks of two standard deviations.

python bench/peak.py [--experiments 1000] [--calibrate]
"""

import argparse
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from overparam.analyse.comparisons import paired_t
from overparam.analyse.peak import held_out

LEVELS = 10
PLACES = np.linspace(0.0, 1.0, LEVELS)  # all in standard deviations of a run
FLAT = {
    "steep": 24.0 * (1.0 - PLACES),
    "slow": 2.0 * (1.0 - PLACES),
    "slower": 0.5 * (1.0 - PLACES),
    "L": 20.0 * np.maximum(0.0, 0.3 - PLACES),
    "flat": np.zeros(LEVELS),
}
STEPS = np.arange(LEVELS)
PEAKS = {
    "spike": np.where(STEPS == 5, 2.0, 0.0),
    "triangle": np.interp(STEPS, [0, 3, 5, 7, 9], [2.0, 0.0, 2.0, 0.0, 0.0]),
    "double descent": np.interp(STEPS, [0, 3, 5, 8, 9], [3.0, 0.0, 2.0, 0.0, -1.0]),
}


def experiments(curve: NDArray[np.float64], seeds: int, shared: float, count: int) -> Iterator[NDArray[np.float64]]:
    """Curves of `seeds` seeds with noise of variance 1, of which `shared` is common to all levels of a seed."""
    generator = np.random.default_rng(0)
    for _ in range(count):
        own, common = generator.standard_normal((seeds, LEVELS)), generator.standard_normal((seeds, 1))
        yield curve + np.sqrt(1 - shared) * own + np.sqrt(shared) * common


def rates(count: int) -> None:
    print("| curve | noise common to a seed | seeds | called |\n|---|---:|---:|---:|")
    for name, curve in (FLAT | PEAKS).items():
        for shared in (0.0, 0.5, 0.9):
            for seeds in (5, 10):
                called = [held_out(values).p < 0.05 for values in experiments(curve, seeds, shared, count)]
                print(f"| {name} | {shared:.0%} | {seeds} | {np.mean(called):.1%} |")


def calibrate(count: int) -> None:
    """The factor that brings the worst family to 5 %: .05 over the 5 % quantile of the larger p."""
    for seeds in (3, 4, 5, 6, 8, 10, 15, 20):
        found = {}
        for name, curve in FLAT.items():
            for shared in (0.0, 0.5, 0.9):
                sides = (held_out(values) for values in experiments(curve, seeds, shared, count))
                p = [max(paired_t(side.rise), paired_t(side.fall)) for side in sides]
                found[name, shared] = 0.05 / np.quantile(p, 0.05)
        worst = max(found, key=lambda key: found[key])
        print(f"{seeds} seeds: factor {found[worst]:.2f}, from {worst}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument("--calibrate", action="store_true")
    chosen = parser.parse_args()
    (calibrate if chosen.calibrate else rates)(chosen.experiments)
