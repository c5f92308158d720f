"""What the tables beside the paper's share: runs of an arm by level, accuracies, Markdown."""

import csv
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from overparam.claims.intervals import t_interval

Runs = list[dict[str, str]]


def by_level(study: str, arm: str) -> dict[int, Runs]:
    """The runs of an arm in ascending order of its levels, from the file on the command line or the committed one."""
    committed = Path(__file__).parent / f"{study}_laptop" / f"{study}_runs.csv"
    found: dict[int, Runs] = defaultdict(list)
    with (Path(sys.argv[1]) if len(sys.argv) > 1 else committed).open() as file:
        for run in csv.DictReader(file):
            if run["arm"] == arm:
                found[int(run["level"])].append(run)
    return dict(sorted(found.items()))


def accuracy_cells(published: float, runs: Runs, allowed: float) -> list[str]:
    """The paper's test accuracy, that of the runs, and whether they lie within `allowed` points and two SE."""
    tested = t_interval([100 * float(run["test_accuracy"]) for run in runs])
    apart, bound = tested.estimate - 100 * published, allowed + 2 * tested.sd / math.sqrt(tested.n)
    return [
        f"{100 * published:.1f}",
        f"{tested.estimate:.2f} [{tested.lower:.2f}, {tested.upper:.2f}]",
        f"{apart:+.2f}, {'inside' if abs(apart) <= bound else 'outside'} {bound:.2f}",
    ]


def show(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
