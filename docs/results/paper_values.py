"""The values that arXiv:2604.07603 published, from docs/paper_values.csv, and what follows from them alone."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

VALUES = Path(__file__).parent.parent / "paper_values.csv"


@dataclass(frozen=True)
class Value:
    """A published number; its spread over seeds and their count where it was printed with them."""

    value: float
    sd: float | None
    seeds: int | None


@dataclass(frozen=True)
class Difference:
    """Of two published means, with the 95 % Welch interval that their printed spreads and seeds allow."""

    estimate: float
    lower: float
    upper: float


class Paper:
    """The published values of a claim's experiment by quantity."""

    def __init__(self, file: Path = VALUES) -> None:
        with file.open(encoding="utf-8", newline="") as opened:
            rows = list(csv.DictReader(opened))
        self.values = {(row["claim"], row["quantity"]): _value(row) for row in rows}

    def value(self, claim: str, quantity: str) -> Value:
        if (claim, quantity) not in self.values:
            raise SystemExit(f'{VALUES.name} has no quantity "{quantity}" of {claim}; add its row')
        return self.values[claim, quantity]

    def number(self, claim: str, quantity: str) -> float:
        return self.value(claim, quantity).value

    def series(self, claim: str, quantity: str) -> dict[float, Value]:
        """Values of "quantity LEVEL" in ascending order of their levels."""
        start = f"{quantity} "
        names = [name for of, name in self.values if of == claim and name.startswith(start)]
        levels = {float(name.removeprefix(start)): name for name in names}
        return {level: self.value(claim, levels[level]) for level in sorted(levels)}


def _value(row: dict[str, str]) -> Value:
    sd, seeds = row["sd"], row["seeds"]
    return Value(float(row["value"]), float(sd) if sd else None, int(seeds) if seeds else None)


def half_width(seeds: int) -> float:
    """Half of the 95 % t interval of a mean, in standard deviations of the sample.

    >>> [round(half_width(seeds), 2) for seeds in (2, 3, 5)]
    [8.98, 2.48, 1.24]
    """
    return float(stats.t.ppf(0.975, seeds - 1)) / math.sqrt(seeds)


def difference(a: Value, b: Value) -> Difference:
    """a − b with its Welch interval.

    >>> found = difference(Value(85.52, 0.26, 3), Value(83.27, 0.39, 3))
    >>> round(found.estimate, 2), round(found.lower, 2), round(found.upper, 2)
    (2.25, 1.45, 3.05)
    """
    if a.sd is None or b.sd is None or a.seeds is None or b.seeds is None:
        raise ValueError("a Welch interval needs two means with spread and seeds")
    one, other = a.sd**2 / a.seeds, b.sd**2 / b.seeds
    freedom = (one + other) ** 2 / (one**2 / (a.seeds - 1) + other**2 / (b.seeds - 1))
    half, apart = float(stats.t.ppf(0.975, freedom)) * math.sqrt(one + other), a.value - b.value
    return Difference(apart, apart - half, apart + half)


def slope(series: dict[float, Value]) -> float:
    """Least-squares slope of the values per doubling of the level."""
    return float(stats.linregress([math.log2(x) for x in series], [each.value for each in series.values()]).slope)


def exponent(series: dict[float, Value]) -> float:
    """Least-squares exponent b of value ∝ level^b."""
    return slope({level: Value(math.log2(each.value), None, None) for level, each in series.items()})


def initial_norm(width: int, inputs: int = 784, classes: int = 10) -> float:
    """Root of the expected ‖θ₀‖² of the paper's MLP: PyTorch draws uniformly up to ±1/√fan_in.

    >>> round(initial_norm(32), 2), round(initial_norm(4096), 2)
    (6.01, 64.04)
    """
    layers = ((inputs, width), (width, width), (width, width), (width, classes))
    return math.sqrt(sum((given + 1) * units / (3 * given) for given, units in layers))  # variance 1/(3 fan_in)
