"""Ticks of logarithmic axes: several plain numbers, however much or little of the axis is in view."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

ROUNDING = 1e-9  # values whose ratio is nearer to 1 than this stand in one place


class ReadableLog(LogLocator):
    """Ticks at powers of ten; where fewer than three are in view, at 3s, at 2s and 5s or at more between them too."""

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        low, high = sorted((vmin, vmax))
        if low <= 0.0 or math.floor(math.log10(high)) - math.ceil(math.log10(low)) >= 2:
            return list(super().tick_values(vmin, vmax))
        powers = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        for digits in ((1, 3), (1, 2, 5), range(1, 10)):
            ticks = [tick for power in powers for digit in digits if low <= (tick := float(power * digit)) <= high]
            if len(ticks) >= 3:
                return ticks
        return list(MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high))

    def nonsingular(self, vmin: float, vmax: float) -> tuple[float, float]:
        """Limits around the data: a decade where all of them stand in one place, which bars reach up to rounding."""
        low, high = sorted((vmin, vmax))
        if low > 0.0 and high <= low * (1.0 + ROUNDING):
            return low / math.sqrt(10.0), high * math.sqrt(10.0)
        low, high = super().nonsingular(vmin, vmax)
        return float(low), float(high)
