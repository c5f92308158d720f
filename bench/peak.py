"""How often the peak detector calls a peak: on curves without one, and on peaks of two standard deviations.

PYTHONPATH=. python bench/peak.py [--experiments 1000] [--calibrate]
"""

import argparse

import numpy as np

from overparam.claims.comparisons import paired_t
from overparam.claims.peak import held_out
from tests.support.curves import FLAT, PEAKS, experiments


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
