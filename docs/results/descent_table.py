"""The paper's table of width and accuracy beside the runs of `double_descent`: the Markdown table of README.md.

python docs/results/descent_table.py [docs/results/double_descent_laptop/double_descent_runs.csv]
"""

import csv
import math
import sys
from collections import defaultdict
from pathlib import Path

from overparam.analyse.intervals import t_interval
from overparam.studies.double_descent.claims import PAPER, PUBLISHED

ALLOWED = 0.7  # points, before two standard errors
RUNS = Path(__file__).parent / "double_descent_laptop" / "double_descent_runs.csv"


def row(width: int, runs: list[dict[str, str]]) -> str:
    tested = t_interval([100 * float(run["test_accuracy"]) for run in runs])
    fitted = t_interval([100 * float(run["train_accuracy"]) for run in runs])
    apart, allowed = tested.estimate - 100 * PAPER[width], ALLOWED + 2 * tested.sd / math.sqrt(tested.n)
    cells = [
        f"{width}",
        f"{100 * PAPER[width]:.1f}",
        f"{tested.estimate:.2f} [{tested.lower:.2f}, {tested.upper:.2f}]",
        f"{apart:+.2f}, {'inside' if abs(apart) <= allowed else 'outside'} {allowed:.2f}",
        f"{fitted.estimate:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    by_width = defaultdict(list)
    with (Path(sys.argv[1]) if len(sys.argv) > 1 else RUNS).open() as file:
        for run in csv.DictReader(file):
            if run["arm"] == PUBLISHED:
                by_width[int(run["level"])].append(run)
    heads = ["width", "paper, test %", "test % [95 %]", "points", "train %"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for width, runs in sorted(by_width.items()):
        print(row(width, runs))


if __name__ == "__main__":
    main()
