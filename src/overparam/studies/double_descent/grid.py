"""Widths around the interpolation threshold."""

import math

# The narrowest MLP of depth 3 that fits 99 % of the given labels of MNIST-1D, 15 % of them wrong, as the laptop and the
# smoke preset train it; mean of two seeds that no study uses: `docs/results/threshold.py`. Frozen before the runs.
MNIST1D_THRESHOLD = 49
SMOKE_THRESHOLD = 50
SHARES = (0.18, 0.36, 0.55, 0.7, 0.85, 1.0, 1.2, 1.5, 2.4, 4.8)  # six of them within a factor of 2


def around(threshold: float, shares: tuple[float, ...] = SHARES) -> tuple[int, ...]:
    """Widths at the given shares of the threshold, each once.

    >>> around(50, (0.5, 1.0, 2.0))
    (25, 50, 100)
    """
    return tuple(sorted({max(1, round(threshold * share)) for share in shares}))


def width_of(parameters: float, inputs: int, classes: int) -> float:
    """Width w at which an MLP of depth 3 has so many parameters: `w² + (inputs + classes + 2) w + classes`.

    >>> round(width_of(64**2 + (40 + 10 + 2) * 64 + 10, 40, 10))
    64
    """
    linear = inputs + classes + 2
    return (math.sqrt(linear**2 + 4 * (parameters - classes)) - linear) / 2
