"""Curves over widths, with a peak and without one, and noisy experiments on them."""

from collections.abc import Iterator

import numpy as np

from overparam.claims.intervals import Values
from overparam.foundations.numpy_generators import numpy_generator

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


def experiments(curve: Values, seeds: int, shared: float, count: int) -> Iterator[Values]:
    """Curves of `seeds` seeds with noise of variance 1, of which `shared` is common to all levels of a seed."""
    generator = numpy_generator(seeds, "curves")
    for _ in range(count):
        own, common = generator.standard_normal((seeds, LEVELS)), generator.standard_normal((seeds, 1))
        yield curve + np.sqrt(1 - shared) * own + np.sqrt(shared) * common
